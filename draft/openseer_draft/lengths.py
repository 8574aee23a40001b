"""Chooses draft lengths (the number of verified tokens of each candidate) for the most tokens per second.

Problem: each verified token makes the step longer, and a rejected token yields nothing. The best length depends on the
batch size, the chances of each request, and the engine.

Idea: a step that verifies k draft tokens for B requests takes the time T(B, k). It yields B tokens plus one for each
accepted draft token. T is measured. The candidate tokens of all requests are sorted by chance, and the first ones are
drafted, as many as maximise yield / T. So the load sets one threshold of the chance, not one length for all requests.

Example: two requests with the chances a: 0.9, 0.8, 0.3 and b: 0.5; T(2, k) = 10 ms + k * 1 ms. Tokens per ms:
0.200 without drafts; 2.9 / 11 = 0.264 with the first token of a; 3.7 / 12 = 0.308 with the second token of a, too;
4.2 / 13 = 0.323 with the token of b, too; 4.5 / 14 = 0.321 with the third token of a, too. So a gets two draft tokens
and b one. If each draft token costs 6 ms, 2.9 / 16 = 0.181 is below 0.200: no token is drafted, and the engine makes a
step without drafts.

Consequences: drafts become shorter under load, where T grows faster with k; a request of higher importance gets longer
drafts. Source: Seer, section 3.3: the argmin over γ of the time per token; here each request has its own γ and its own
chances.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.compiled import compiled

ROW_NODES = 11
"""Number of batch sizes (nodes) with a model of their own: 1, 2, 4, … 1024."""
SPEED_RATE = 1 / 16
"""Weight of the latest step in a node's speed, which changes as contexts grow and machines are shared."""
BASE_RATE = 1 / 8
"""Lower limit of the weight 1/n of the n-th measurement of a step without drafts."""
MEMORY = 1 / 128
"""Share of the sums of a line's fit that each measurement discards."""
ANCHORS = (0.5, 8.0)
"""Draft tokens per request at which a fit weakly keeps the line's former values, so that measurements of one number of
drafts do not change the line's slope."""
TRUSTED = 3.0
LARGEST_STEP = 2.0
"""After TRUSTED measurements, a measured time counts as at most LARGEST_STEP times the expected time: in a longer step
the machine was busy with other work."""
BINS_PER_OCTAVE = 8
OCTAVES = 8
BINS = BINS_PER_OCTAVE * OCTAVES
"""Number of bins of values (importance × chance); values in one bin differ by less than a tenth."""
LARGEST_VALUE = 4.0
"""Upper end of the bins: a token of chance 1 of a request with importance 4."""


class Costs(NamedTuple):
    """T by batch size (ROW_NODES), in seconds: `speed` × `base` without drafts, otherwise `speed` × (a + b × draft
    tokens per request).

    A step without drafts is a separate case, because the engine runs other code in it. After TRUSTED measurements every
    step updates the common factor `speed`, so that T changes also for the case that does not occur. `lines` (ROW_NODES,
    2): a and b; `sums` (ROW_NODES, 5): the sums of the fit: weight, x, x², t and x t; `measured` (ROW_NODES, 2): number
    of measurements without and with drafts.
    """

    speed: NDArray[np.float64]
    base: NDArray[np.float64]
    lines: NDArray[np.float64]
    sums: NDArray[np.float64]
    measured: NDArray[np.float64]


def new_costs() -> Costs:
    """Returns the initial values, of which only ratios matter: T grows slowly with requests and draft tokens."""
    rows = np.exp2(np.arange(ROW_NODES, dtype=np.float64))
    lines = np.array([1.0 + rows / 64.0, rows / 64.0]).T.copy()
    sums, measured = np.zeros((ROW_NODES, 5)), np.zeros((ROW_NODES, 2))
    return Costs(np.full(ROW_NODES, 0.01), lines[:, 0].copy(), lines, sums, measured)


def fill(costs: Costs) -> None:
    """Estimates the unmeasured batch sizes from the measured ones, weighted by inverse square distance."""
    guess, at = new_costs(), np.arange(ROW_NODES)
    known = costs.measured.sum(axis=1) > 0.0
    for own, guessed in ((costs.speed, guess.speed), (costs.base, guess.base), (costs.lines, guess.lines)):
        ratios = np.log(np.maximum(own[known], 1e-12) / guessed[known])
        for row in at[~known]:
            near = 1.0 / (at[known] - row) ** 2.0
            own[row] = guessed[row] * np.exp(near @ ratios / near.sum())


@compiled
def nodes_of(rows):
    """Returns (the node below, the weight of the node above) for a batch size."""
    at = min(np.log2(max(rows, 1)), ROW_NODES - 1.0)
    row = min(int(at), ROW_NODES - 2)
    return row, at - row


@compiled
def at_node(costs, row, share):
    """Returns T at a node, with `share` draft tokens per request, at speed 1."""
    return costs.base[row] if share <= 0.0 else costs.lines[row, 0] + costs.lines[row, 1] * share


@compiled
def seconds_of(costs, rows, drafted):
    """Returns T: the seconds of a step of `rows` requests that verifies `drafted` tokens."""
    row, up = nodes_of(rows)
    share = drafted / max(rows, 1)
    low = costs.speed[row] * at_node(costs, row, share)
    return low * (1 - up) + costs.speed[row + 1] * at_node(costs, row + 1, share) * up


@compiled
def fit(costs, row, weight, share, seconds):
    """Adds one measurement to a node's line: least squares with decaying weights, and the former values at ANCHORS."""
    sums, line = costs.sums[row], costs.lines[row]
    keep = 1.0 - weight * MEMORY
    sums[0] = sums[0] * keep + weight
    sums[1] = sums[1] * keep + weight * share
    sums[2] = sums[2] * keep + weight * share * share
    sums[3] = sums[3] * keep + weight * seconds
    sums[4] = sums[4] * keep + weight * share * seconds
    n, x, xx, t, xt = sums[0], sums[1], sums[2], sums[3], sums[4]
    pull = min(1.0, 0.1 * n)
    for anchor in ANCHORS:
        there = line[0] + line[1] * anchor
        n, x, xx = n + pull, x + pull * anchor, xx + pull * anchor * anchor
        t, xt = t + pull * there, xt + pull * anchor * there
    line[1] = max(0.0, (n * xt - x * t) / (n * xx - x * x))
    line[0] = max(0.0, (t - line[1] * x) / n)


@compiled
def move(costs, row, weight, share, gain):
    """Updates one node by a measurement. `gain`: ratio of the measured to the expected time; `weight`: the node's share
    of the measurement; `share`: draft tokens per request."""
    kind = 0 if share <= 0.0 else 1
    if costs.measured[row, 0] + costs.measured[row, 1] == 0.0:
        costs.speed[row] *= gain
        gain = 1.0
    if costs.measured[row, kind] > TRUSTED:
        gain = min(gain, LARGEST_STEP)
        faster = 1.0 + weight * SPEED_RATE * (gain - 1.0)
        costs.speed[row] *= faster
        gain /= faster
    costs.measured[row, kind] += weight
    if kind == 1:
        fit(costs, row, weight, share, gain * at_node(costs, row, share))
    else:
        costs.base[row] *= 1.0 + weight * max(1.0 / max(costs.measured[row, 0], 1.0), BASE_RATE) * (gain - 1.0)


@compiled
def measure(costs, rows, drafted, seconds):
    """Updates T by the measured time of one step."""
    row, up = nodes_of(rows)
    share = drafted / max(rows, 1)
    gain = seconds / seconds_of(costs, rows, drafted)
    if up < 1.0:
        move(costs, row, 1.0 - up, share, gain)
    if up > 0.0:
        move(costs, row + 1, up, share, gain)


@compiled
def bin_of(value):
    """Returns the bin of a value; bin 0 has the largest values."""
    return max(0, min(BINS - 1, int(BINS_PER_OCTAVE * np.log2(LARGEST_VALUE / value))))


@compiled
def choose(costs, found, slots, importance, totals, own):
    """Sets found.drafted of the slots: the number of drafted tokens of each candidate.

    `own`: seconds per step for drafting itself, added to the cost of a step with drafts. `totals`: scratch, float64
    (2, BINS).
    """
    for into in range(BINS):
        totals[0, into] = 0.0
        totals[1, into] = 0.0
    base = 0.0
    for slot in slots:
        base += importance[slot]
        for step in range(found.lengths[slot]):
            value = importance[slot] * found.chances[slot, step]
            into = bin_of(value)
            totals[0, into] += 1.0
            totals[1, into] += value
    rows = len(slots)
    best, threshold = base / seconds_of(costs, rows, 0), -1
    tokens, value = 0.0, base
    for into in range(BINS):
        if totals[0, into] > 0.0:
            tokens += totals[0, into]
            value += totals[1, into]
            rate = value / (seconds_of(costs, rows, tokens) + own)
            if rate > best:
                best, threshold = rate, into
    cut(found, slots, importance, threshold)


@compiled
def cut(found, slots, importance, threshold):
    """Sets found.drafted to each candidate's tokens in the bins up to `threshold`; -1: no tokens."""
    for slot in slots:
        length = 0
        while length < found.lengths[slot] and bin_of(importance[slot] * found.chances[slot, length]) <= threshold:
            length += 1
        found.drafted[slot] = length


@compiled
def choose_likely(found, slots, least):
    """Sets found.drafted to each candidate's tokens with a chance of at least `least`, at any cost of a step."""
    for slot in slots:
        length = 0
        while length < found.lengths[slot] and found.chances[slot, length] >= least:
            length += 1
        found.drafted[slot] = length
