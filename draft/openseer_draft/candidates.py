"""Finds one request's best path through the automaton: the path with the most expected accepted tokens.

Every suffix of the text that occurs elsewhere is a possible start; a path follows the most frequent tokens from there.
The engine verifies one path per request, not trees, so the best path is chosen (Seer's trees of the two to four best
paths would yield at most 0.08 tokens per step more at the same number of verified tokens).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.acceptance import cell_of, learn, learn_path, origin_of, path_of
from openseer_draft.arena import COUNT, LENGTH, LINK, OWNER, TARGET, TOKEN
from openseer_draft.compiled import compiled

STARTS = 6
"""Limit of suffixes whose paths are compared, longest first."""
SUFFIXES = 24
"""Limit of suffixes that are examined for a start: a run of n equal tokens has n suffixes."""
RECENT_RATE = 0.1
"""Weight of the latest proposal in the share of successful proposals, a mean over about ten steps."""
FIRST_RECENT = 0.5
"""Initial value of that share."""
LEAST_CHANCE = 0.02
"""Chance, that all tokens so far are accepted, below which a path ends."""


class Candidates(NamedTuple):
    """The last proposed path of each slot, and one more row for trials.

    (rows, longest draft): `tokens`; `cells` and `paths`, their places in the tables of Acceptance; `chances`, that all
    tokens up to this one are accepted. (rows): `lengths` of the paths; `drafted`, the number of tokens that the engine
    got; `origins` of the first tokens; `recent`, the share of recent proposals whose first token was sampled.
    """

    tokens: NDArray[np.int32]
    cells: NDArray[np.int32]
    paths: NDArray[np.int32]
    chances: NDArray[np.float64]
    lengths: NDArray[np.int32]
    drafted: NDArray[np.int32]
    origins: NDArray[np.int32]
    recent: NDArray[np.float64]


def new_candidates(slots: int, longest: int) -> Candidates:
    """Returns empty slots, and one more row for trials."""
    shape = (slots + 1, longest)
    return Candidates(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape),
        np.zeros(slots + 1, np.int32),
        np.zeros(slots + 1, np.int32),
        np.zeros(slots + 1, np.int32),
        np.full(slots + 1, FIRST_RECENT),
    )


@compiled
def trace(arena, table, found, row, state, match, request, recent):
    """Writes the path from `state` to `row`; returns its expected number of accepted tokens. `match`: tokens of the
    suffix in `state`."""
    states = arena.states
    longest = found.tokens.shape[1]
    chance, expected, length = 1.0, 0.0, 0
    among = states[state, COUNT] - 1  # less the end of the request's own text
    while length < longest:
        following = states[state, TARGET]
        if following == 0:
            break
        origin = origin_of(states[following, OWNER], request)
        if length == 0:
            found.origins[row] = origin
        cell = cell_of(
            table, recent, origin, match + length, states[following, COUNT], max(among, states[following, COUNT])
        )
        chance *= table.chance[cell]
        if chance < LEAST_CHANCE:
            break
        found.tokens[row, length] = states[state, TOKEN]
        found.cells[row, length] = cell
        path = path_of(chance)
        real = table.paths[path, 1] / table.paths[path, 0]
        found.paths[row, length] = path
        found.chances[row, length] = min(real, found.chances[row, length - 1]) if length else real
        expected += found.chances[row, length]
        length += 1
        among = states[following, COUNT]
        state = following
    found.lengths[row] = length
    return expected


@compiled
def propose(arena, table, found, slot, last, request):
    """Writes the best path after the text that ends in state `last` to the slot."""
    states = arena.states
    spare = found.tokens.shape[0] - 1
    best, starts, looked = 0.0, 0, 0
    found.lengths[slot] = 0
    state = last
    while states[state, LENGTH] > 0 and starts < STARTS and looked < SUFFIXES:
        looked += 1
        if states[state, TARGET] != 0:
            starts += 1
            expected = trace(arena, table, found, spare, state, states[state, LENGTH], request, found.recent[slot])
            if expected > best:
                best = expected
                copy(found, spare, slot)
        state = states[state, LINK]


@compiled
def copy(found, from_row, to_row):
    """Copies a path from one row to another."""
    length = found.lengths[from_row]
    found.lengths[to_row] = length
    found.origins[to_row] = found.origins[from_row]
    for step in range(length):
        found.tokens[to_row, step] = found.tokens[from_row, step]
        found.cells[to_row, step] = found.cells[from_row, step]
        found.paths[to_row, step] = found.paths[from_row, step]
        found.chances[to_row, step] = found.chances[from_row, step]


@compiled
def observe(table, found, slot, tokens, start, stop):
    """Learns from the sampled tokens[start:stop]; returns the number of proposed tokens that were sampled."""
    came_true = 0
    if found.lengths[slot] > 0:
        hit = found.tokens[slot, 0] == tokens[start]
        found.recent[slot] += RECENT_RATE * ((1.0 if hit else 0.0) - found.recent[slot])
    for step in range(min(found.lengths[slot], stop - start)):
        hit = found.tokens[slot, step] == tokens[start + step]
        learn(table, found.cells[slot, step], hit)
        if not hit:
            break
        came_true += 1
    failed = came_true < stop - start
    for step in range(found.lengths[slot] if failed else came_true):
        learn_path(table, found.paths[slot, step], step < came_true)
    return came_true
