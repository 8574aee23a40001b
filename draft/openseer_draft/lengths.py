"""How much of each candidate is given to the engine: what makes the step's yield per second largest.

A step that verifies k draft tokens for B requests takes T(B, k) and yields B tokens plus one for each accepted draft.
Tokens are taken in the order of their chance, over all requests, as long as yield / T grows: one threshold, which the
load sets, instead of one length for all. In the notation of Seer (section 3.3): the argmin over γ of the time per
token, but with each request's own γ and its own acceptance.
"""

# Compiled functions carry no types (see compiled).
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.candidates import LEAST_CHANCE
from openseer_draft.compiled import compiled

ROW_NODES = 11
"""Measured batch sizes: 1, 2, 4, … 1024."""
SHARES = (0.0, 0.125, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Measured draft tokens per request. None is its own case: with any, a step takes another way through the engine."""
SHARE_NODES = len(SHARES)
SLOWEST_RATE = 8.0
"""A node follows its measurements at the rate 1/n, down to 1/8, so that growing contexts are followed too."""
TRUSTED = 3.0
LARGEST_STEP = 2.0
"""Once a node was measured so often, a measurement beyond so many times the expected one, or its inverse, counts as
that: the machine was elsewhere."""
BINS_PER_OCTAVE = 8
OCTAVES = 8
BINS = BINS_PER_OCTAVE * OCTAVES
"""Chances are sorted into bins; within one they differ by less than a tenth."""
LARGEST_VALUE = 4.0
"""The top of the bins: a certain token of a request that weighs four."""


class Costs(NamedTuple):
    """T in seconds at the nodes (ROW_NODES, SHARE_NODES), how often each was measured, and SHARES as an array.

    `scale` (1): 0 until the first measurement tells how fast the machine is, then that factor.
    """

    seconds: NDArray[np.float64]
    measured: NDArray[np.float64]
    shares: NDArray[np.float64]
    scale: NDArray[np.float64]


def new_costs() -> Costs:
    """Before any measurement: a step is mostly the same whatever it verifies. Only ratios matter."""
    rows = 2.0 ** np.arange(ROW_NODES)
    tokens = rows[:, None] * (1.0 + np.array(SHARES)[None, :])
    return Costs(0.01 * (1.0 + tokens / 64.0), np.zeros((ROW_NODES, SHARE_NODES)), np.array(SHARES), np.zeros(1))


def fill(costs: Costs) -> None:
    """Gives the nodes that were never measured the speed of those near them (Shepard's inverse square distances)."""
    known = costs.measured > 0.0
    if not known.any():
        return
    guess = new_costs().seconds
    at = np.argwhere(known)
    ratios = np.log(costs.seconds[known] / guess[known])
    for row, share in np.argwhere(~known):
        near = 1.0 / ((at - (row, share)) ** 2).sum(axis=1)
        costs.seconds[row, share] = guess[row, share] * np.exp((near * ratios).sum() / near.sum())


@compiled
def place(costs, rows, drafted):
    """(row node, share of the next one, share node, share of the next one) of a step."""
    at = min(np.log2(max(rows, 1)), ROW_NODES - 1.0)
    row = min(int(at), ROW_NODES - 2)
    if drafted <= 0:
        return row, at - row, 0, 0.0
    ratio = min(max(drafted / max(rows, 1), costs.shares[1]), costs.shares[SHARE_NODES - 1])
    share = 1
    while share < SHARE_NODES - 2 and costs.shares[share + 1] < ratio:
        share += 1
    return row, at - row, share, (ratio - costs.shares[share]) / (costs.shares[share + 1] - costs.shares[share])


@compiled
def seconds_of(costs, rows, drafted):
    """T: seconds of a step of `rows` requests that verifies `drafted` tokens."""
    row, up, share, right = place(costs, rows, drafted)
    near = costs.seconds[row, share] * (1 - up) + costs.seconds[row + 1, share] * up
    if right == 0.0:
        return near
    far = costs.seconds[row, share + 1] * (1 - up) + costs.seconds[row + 1, share + 1] * up
    return near * (1 - right) + far * right


@compiled
def scale(costs, factor):
    """Brings all nodes to the machine's speed."""
    costs.scale[0] = factor
    for row in range(ROW_NODES):
        for share in range(SHARE_NODES):
            costs.seconds[row, share] *= factor


@compiled
def move(costs, row, share, weight, gain):
    """Moves one node by what a measurement near it gained over the expectation."""
    measured = costs.measured[row, share] + weight
    costs.measured[row, share] = measured
    if measured > TRUSTED:
        gain = min(max(gain, 1 / LARGEST_STEP), LARGEST_STEP)
    costs.seconds[row, share] *= 1.0 + weight / min(max(measured, 1.0), SLOWEST_RATE) * (gain - 1.0)


@compiled
def measure(costs, rows, drafted, seconds):
    """Takes the time of one step into T; nodes that were never measured keep their ratio to those that were."""
    row, up, share, right = place(costs, rows, drafted)
    expected = seconds_of(costs, rows, drafted)
    if costs.scale[0] == 0.0:
        scale(costs, seconds / expected)
        expected = seconds
    for i in range(2):
        for j in range(2):
            weight = (up if i else 1 - up) * (right if j else 1 - right)
            if weight > 0.0:
                move(costs, row + i, share + j, weight, seconds / expected)


@compiled
def bin_of(value):
    """The bin of a value, the largest ones first."""
    return max(0, min(BINS - 1, int(BINS_PER_OCTAVE * np.log2(LARGEST_VALUE / value))))


@compiled
def choose(costs, found, slots, weights, totals, own):
    """Sets found.drafted of the slots; gives how many tokens that is.

    `own`: seconds that drafting itself takes, which are saved where it does not pay for long. `totals`: scratch,
    float64 (2, BINS).
    """
    for into in range(BINS):
        totals[0, into] = 0.0
        totals[1, into] = 0.0
    base = 0.0
    for slot in slots:
        base += weights[slot]
        for step in range(found.lengths[slot]):
            value = weights[slot] * found.chances[slot, step]
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
    return cut(found, slots, weights, threshold)


@compiled
def cut(found, slots, weights, threshold):
    """Drafts of each candidate what lies in the bins up to `threshold`; -1: nothing."""
    drafted = 0
    for slot in slots:
        length = 0
        while length < found.lengths[slot] and bin_of(weights[slot] * found.chances[slot, length]) <= threshold:
            length += 1
        found.drafted[slot] = length
        drafted += length
    return drafted


@compiled
def choose_likely(found, slots, least):
    """Drafts of each candidate what is accepted with a chance of at least `least`, whatever a step costs."""
    drafted = 0
    for slot in slots:
        length = 0
        while length < found.lengths[slot] and found.chances[slot, length] >= max(least, LEAST_CHANCE):
            length += 1
        found.drafted[slot] = length
        drafted += length
    return drafted
