"""How much of each candidate is given to the engine: what makes the step's yield per second largest.

A step that verifies k draft tokens for B requests takes T(B, k) and yields B tokens plus one for each accepted draft.
Tokens are taken in the order of their chance, over all requests, as long as yield / T grows: one threshold, which the
load sets, instead of one length for all. In the notation of Seer (section 3.3): the argmin over γ of the time per
token, but with each request's own γ and its own acceptance.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.compiled import compiled

ROW_NODES = 11
"""Batch sizes that have a model of their own: 1, 2, 4, … 1024."""
SPEED_RATE = 1 / 16
"""How fast the speed follows the latest step: contexts grow, and machines are shared."""
BASE_RATE = 1 / 8
"""What a step without drafts takes, at that speed, follows its measurements at the rate 1/n, down to this."""
MEMORY = 1 / 128
"""A line forgets this part of what it was fitted to with each step."""
ANCHORS = (0.5, 8.0)
"""Drafts per request at which a line is held a little to what it was, so that steps all alike do not turn it."""
TRUSTED = 3.0
LARGEST_STEP = 2.0
"""Once a size was measured so often, a measurement beyond so many times the expected one counts as that: the machine
was elsewhere."""
BINS_PER_OCTAVE = 8
OCTAVES = 8
BINS = BINS_PER_OCTAVE * OCTAVES
"""Chances are sorted into bins; within one they differ by less than a tenth."""
LARGEST_VALUE = 4.0
"""The top of the bins: a certain token of a request of importance four."""


class Costs(NamedTuple):
    """T by batch size (ROW_NODES): `speed` × `base` without drafts, else `speed` × (a + b × drafts per request).

    Without drafts is a case of its own: with any, a step takes another way through the engine. The speed follows every
    step, so that what is not drafted now is not taken for slower or faster than it is. `lines` (ROW_NODES, 2): a and b;
    `sums` (ROW_NODES, 5): what they are fitted to, as weight, x, x², t and x t; `measured` (ROW_NODES, 2): how often,
    without and with drafts.
    """

    speed: NDArray[np.float64]
    base: NDArray[np.float64]
    lines: NDArray[np.float64]
    sums: NDArray[np.float64]
    measured: NDArray[np.float64]


def new_costs() -> Costs:
    """Before any measurement: a step is mostly the same whatever it verifies. Only ratios matter."""
    rows = np.exp2(np.arange(ROW_NODES, dtype=np.float64))
    lines = np.array([1.0 + rows / 64.0, rows / 64.0]).T.copy()
    sums, measured = np.zeros((ROW_NODES, 5)), np.zeros((ROW_NODES, 2))
    return Costs(np.full(ROW_NODES, 0.01), lines[:, 0].copy(), lines, sums, measured)


def fill(costs: Costs) -> None:
    """Gives batch sizes that were never measured what those near them are like (by inverse square distances)."""
    guess, at = new_costs(), np.arange(ROW_NODES)
    known = costs.measured.sum(axis=1) > 0.0
    for own, guessed in ((costs.speed, guess.speed), (costs.base, guess.base), (costs.lines, guess.lines)):
        ratios = np.log(np.maximum(own[known], 1e-12) / guessed[known])
        for row in at[~known]:
            near = 1.0 / (at[known] - row) ** 2.0
            own[row] = guessed[row] * np.exp(near @ ratios / near.sum())


@compiled
def nodes_of(rows):
    """(the node below, share of the node above) of a batch size."""
    at = min(np.log2(max(rows, 1)), ROW_NODES - 1.0)
    row = min(int(at), ROW_NODES - 2)
    return row, at - row


@compiled
def at_node(costs, row, share):
    """T at a batch size that has a model, with `share` drafts per request, at speed 1."""
    return costs.base[row] if share <= 0.0 else costs.lines[row, 0] + costs.lines[row, 1] * share


@compiled
def seconds_of(costs, rows, drafted):
    """T: seconds of a step of `rows` requests that verifies `drafted` tokens."""
    row, up = nodes_of(rows)
    share = drafted / max(rows, 1)
    low = costs.speed[row] * at_node(costs, row, share)
    return low * (1 - up) + costs.speed[row + 1] * at_node(costs, row + 1, share) * up


@compiled
def fit(costs, row, weight, share, seconds):
    """Takes one measurement into a line: least squares that forget, held to what it was at the anchors."""
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
    """Moves what is known of one batch size by what a measurement near it gained over the expectation."""
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
    """Takes the time of one step into T."""
    row, up = nodes_of(rows)
    share = drafted / max(rows, 1)
    gain = seconds / seconds_of(costs, rows, drafted)
    if up < 1.0:
        move(costs, row, 1.0 - up, share, gain)
    if up > 0.0:
        move(costs, row + 1, up, share, gain)


@compiled
def bin_of(value):
    """The bin of a value, the largest ones first."""
    return max(0, min(BINS - 1, int(BINS_PER_OCTAVE * np.log2(LARGEST_VALUE / value))))


@compiled
def choose(costs, found, slots, importance, totals, own):
    """Sets found.drafted of the slots: how much of each candidate is drafted.

    `own`: seconds that drafting itself takes, which are saved where it does not pay for long. `totals`: scratch,
    float64 (2, BINS).
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
    """Drafts of each candidate what lies in the bins up to `threshold`; -1: nothing."""
    for slot in slots:
        length = 0
        while length < found.lengths[slot] and bin_of(importance[slot] * found.chances[slot, length]) <= threshold:
            length += 1
        found.drafted[slot] = length


@compiled
def choose_likely(found, slots, least):
    """Drafts of each candidate what is accepted with a chance of at least `least`, whatever a step costs."""
    for slot in slots:
        length = 0
        while length < found.lengths[slot] and found.chances[slot, length] >= least:
            length += 1
        found.drafted[slot] = length
