"""One step of all live requests in one compiled call: learns from sampled tokens, appends them, and proposes drafts."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.acceptance import ORIGINS, Acceptance
from openseer_draft.arena import CORPUS_SIZE, Arena
from openseer_draft.automaton import append
from openseer_draft.candidates import Candidates, observe, propose
from openseer_draft.compiled import compiled
from openseer_draft.lengths import Costs, choose, choose_likely, measure

# Columns of a live request. GROUP: the row of its automaton; LAST: the state at its text's end, 0 without drafts; SEEN:
# tokens of its text; REQUEST: its owner number; BEGIN: position of its response's first token; COUNTED: 1 if the
# group's CORPUS_SIZE includes it; PROPOSED: 1 after a step that proposed for it; KNOWN: the size of its corpus at that
# step, as an index of CORPUS_SIZES.
GROUP, LAST, SEEN, REQUEST, BEGIN, COUNTED, PROPOSED, KNOWN = range(8)
LIVE_COLUMNS = 8
NO_GROUP = 0
"""Row of the live requests whose group got no memory; it never has an automaton."""

CORPUS_SIZES = (0, 1, 2, 4, 8, 16)
"""Least sizes of the classes of corpora (numbers of siblings' responses to draft from), for the metrics."""
# Indices of the metrics: counts, then two counts per origin, then two counts per class of corpora.
DRAFTED, ACCEPTED, DRAFT_STEPS, FULL = range(4)
BY_ORIGIN = 4
BY_CORPUS_SIZE = BY_ORIGIN + 2 * len(ORIGINS)
METRICS = BY_CORPUS_SIZE + 2 * len(CORPUS_SIZES)

ADAPTIVE, LIKELY, NOTHING, ASLEEP = range(4)
"""Modes of a step: drafts by cost, drafts by chance, proposals without drafts, neither proposals nor drafts."""
LIKELY_CHANCE = 0.4
"""Least chance of a drafted token in a measured step, and in every step without adaptive lengths."""


class Tables(NamedTuple):
    """All data that a step reads and writes. `groups` int32 (groups, GROUP_COLUMNS); `live` int32 (slots,
    LIVE_COLUMNS); `importance` float64 (slots); `metrics` float64 (METRICS); `totals`: scratch of `choose`."""

    arena: Arena
    groups: NDArray[np.int32]
    live: NDArray[np.int32]
    importance: NDArray[np.float64]
    acceptance: Acceptance
    costs: Costs
    found: Candidates
    metrics: NDArray[np.float64]
    totals: NDArray[np.float64]


@compiled
def size_index(corpus_size):
    """Returns the index in CORPUS_SIZES of a corpus's class."""
    index = 0
    while index + 1 < len(CORPUS_SIZES) and corpus_size >= CORPUS_SIZES[index + 1]:
        index += 1
    return index


@compiled
def record(tables, slot, gained, came_true):
    """Adds the outcome of a request's last proposal to the metrics. `gained`: number of new tokens; `came_true`: number
    of proposed tokens that were sampled."""
    metrics, drafted = tables.metrics, tables.found.drafted[slot]
    counter = BY_CORPUS_SIZE + 2 * tables.live[slot, KNOWN]
    metrics[counter] += 1
    metrics[counter + 1] += gained
    if drafted > 0:
        accepted = min(came_true, drafted)
        metrics[DRAFTED] += drafted
        metrics[ACCEPTED] += accepted
        metrics[DRAFT_STEPS] += 1
        counter = BY_ORIGIN + 2 * tables.found.origins[slot]
        metrics[counter] += drafted
        metrics[counter + 1] += accepted


@compiled
def take(tables, slot, tokens, stop):
    """Learns from a request's new tokens, tokens[SEEN:stop], and appends them to its automaton."""
    live = tables.live
    start = live[slot, SEEN]
    if live[slot, PROPOSED]:
        record(tables, slot, stop - start, observe(tables.acceptance, tables.found, slot, tokens, start, stop))
        live[slot, PROPOSED] = 0
    live[slot, SEEN] = stop
    group = live[slot, GROUP]
    # The requests without memory have one row together, and no corpus.
    if group != NO_GROUP and not live[slot, COUNTED] and stop > live[slot, BEGIN]:
        live[slot, COUNTED] = 1
        tables.groups[group, CORPUS_SIZE] += 1
    if live[slot, LAST] == 0:
        return
    last, reached = append(
        tables.arena, tables.groups, group, live[slot, REQUEST], live[slot, LAST], tokens, start, stop
    )
    live[slot, LAST] = last
    # If memory is short, or a token is invalid, this request gets no drafts until it is opened again.
    if reached < stop:
        live[slot, LAST] = 0
        tables.metrics[FULL] += 1


@compiled
def renew(tables, slot, tokens, stop, mode):
    """Adds the new tokens of a request and, unless the mode is ASLEEP, writes its next proposal."""
    live, found = tables.live, tables.found
    if stop > live[slot, SEEN]:
        take(tables, slot, tokens, stop)
    found.lengths[slot] = 0
    found.drafted[slot] = 0
    if live[slot, LAST] != 0 and mode != ASLEEP:
        propose(tables.arena, tables.acceptance, found, slot, live[slot, LAST], live[slot, REQUEST])
    live[slot, KNOWN] = size_index(tables.groups[live[slot, GROUP], CORPUS_SIZE] - live[slot, COUNTED])
    live[slot, PROPOSED] = 1


@compiled
def step(tables, slots, token_ids, rows, ends, seconds, mode, own, out):
    """Adds the new tokens of each slot, token_ids[rows, SEEN:ends], and writes drafts to `out`; see Drafter.step.
    `own`: see `choose`."""
    found = tables.found
    if seconds > 0.0:
        verified = 0
        for slot in slots:
            verified += found.drafted[slot]
        measure(tables.costs, len(slots), verified, seconds)
    for number, slot in enumerate(slots):
        renew(tables, slot, token_ids[rows[number]], ends[number], mode)
    if mode == ADAPTIVE:
        choose(tables.costs, found, slots, tables.importance, tables.totals, own)
    elif mode == LIKELY:
        choose_likely(found, slots, LIKELY_CHANCE)
    for number, slot in enumerate(slots):
        for position in range(found.drafted[slot]):
            out[number, position] = found.tokens[slot, position]
