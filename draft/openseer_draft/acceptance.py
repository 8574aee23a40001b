"""Estimates the chance that a proposed token is sampled, from earlier proposals and the tokens sampled after them.

The automaton's relative frequency alone is a poor estimate: 1 of 1 occurrences after a match of two tokens is weaker
evidence than 40 of 50 after a match of twenty. So a table counts how often proposed tokens were sampled, by match
length, frequency, origin, and the recent success of the request's proposals. It learns from every candidate, also from
candidates that were too unlikely to be verified: the sampled tokens show whether they would have been accepted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.arena import EARLIER, PROMPT
from openseer_draft.compiled import compiled

ORIGINS = ("own", "siblings", "earlier", "prompt")
OWN, SIBLINGS, EARLIER_ORIGIN, PROMPT_ORIGIN = range(4)

# The table's cells: classes of match length (by their least length, in tokens), frequency, origin and recent success.
_MATCH_EDGES = (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 65)
MATCHES = len(_MATCH_EDGES)
LONGEST_MATCH = 65
FREQUENCIES = 16
RECENTS = 4
CELLS = RECENTS * len(ORIGINS) * MATCHES * FREQUENCIES

PRIOR_TRIALS = 4.0
"""Number of trials as which a cell's initial value counts."""
FORGET_AT = 1024.0
"""Number of trials at which a cell's counts are halved, because a model's repetitions change with its weights."""
PATHS = 32
PRIOR_PATH_TRIALS = 20.0
PATHS_FORGET_AT = 2048.0
"""PRIOR_TRIALS and FORGET_AT for the chances of whole paths, in PATHS intervals."""
DOUBT = 0.5
"""Added to the number of positions in a frequency, so that 1 of 1 counts less than 10 of 10."""


class Acceptance(NamedTuple):
    """The counts. Per cell (CELLS): trials, hits, and `chance`, their ratio. `buckets`: the class of a match length.

    `paths` (PATHS, 2): trials and hits of whole paths by their chance, the product over the tokens. The proposed path
    is the best of several, so its chance is too high more often than too low; this table measures the error, and its
    ratios replace the products.
    """

    trials: NDArray[np.float64]
    hits: NDArray[np.float64]
    chance: NDArray[np.float64]
    buckets: NDArray[np.int32]
    paths: NDArray[np.float64]


def new_acceptance() -> Acceptance:
    """Returns a table without observations: a token's chance is its frequency, lowered after a short match."""
    buckets = np.searchsorted(_MATCH_EDGES, np.arange(LONGEST_MATCH + 1), side="right") - 1
    frequency = (np.arange(FREQUENCIES) + 0.5) / FREQUENCIES
    match = np.array(_MATCH_EDGES, float)
    guess = (match / (match + 1.0))[:, None] * frequency[None, :]
    chance = np.broadcast_to(guess, (RECENTS, len(ORIGINS), MATCHES, FREQUENCIES)).reshape(CELLS).copy()
    trials = np.full(PATHS, PRIOR_PATH_TRIALS)
    return Acceptance(
        np.full(CELLS, PRIOR_TRIALS),
        PRIOR_TRIALS * chance,
        chance,
        np.maximum(buckets, 0).astype(np.int32),
        np.array([trials, trials * (np.arange(PATHS) + 0.5) / PATHS]).T.copy(),
    )


@compiled
def cell_of(table, recent, origin, match, occurrences, among):
    """Returns the cell of a token that followed the last `match` tokens at `occurrences` of `among` positions.

    `recent`: the share of the request's latest proposals whose first token was sampled.
    """
    frequency = min(int(occurrences * FREQUENCIES / (among + DOUBT)), FREQUENCIES - 1)
    row = table.buckets[min(match, LONGEST_MATCH)]
    column = min(int(recent * RECENTS), RECENTS - 1) * len(ORIGINS) + origin
    return (column * MATCHES + row) * FREQUENCIES + frequency


@compiled
def origin_of(owner, request):
    """Returns the origin of a draft token for `request`. `owner`: of the token's state."""
    if owner == request:
        return OWN
    if owner == EARLIER:
        return EARLIER_ORIGIN
    if owner == PROMPT:
        return PROMPT_ORIGIN
    return SIBLINGS


@compiled
def learn(table, cell, hit):
    """Counts one trial of a cell. `hit`: whether the token was sampled."""
    table.trials[cell] += 1.0
    if hit:
        table.hits[cell] += 1.0
    table.chance[cell] = table.hits[cell] / table.trials[cell]
    if table.trials[cell] >= FORGET_AT:
        table.trials[cell] *= 0.5
        table.hits[cell] *= 0.5


@compiled
def path_of(chance):
    """Returns the row of `paths` for a chance."""
    return min(int(chance * PATHS), PATHS - 1)


@compiled
def learn_path(table, path, hit):
    """Counts one trial of the row `path` of `paths`. `hit`: whether all its tokens were sampled."""
    trials = table.paths[path]
    trials[0] += 1.0
    if hit:
        trials[1] += 1.0
    if trials[0] >= PATHS_FORGET_AT:
        trials[0] *= 0.5
        trials[1] *= 0.5
