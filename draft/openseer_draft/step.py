"""One step of all live requests in one compiled call: learn from what was sampled, append, propose, choose."""

# Compiled functions carry no types (see compiled).
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.acceptance import SOURCES, Acceptance
from openseer_draft.arena import REFERENCES, Arena
from openseer_draft.automaton import append
from openseer_draft.candidates import Candidates, observe, propose
from openseer_draft.compiled import compiled
from openseer_draft.lengths import Costs, choose, choose_likely, measure

# Columns of a live request. SEEN: tokens of its text that are in the automaton; BEGIN: where its response begins;
# PROPOSED: 1 after a step that proposed for it; KNOWN: its group's references then, as a place in REFERENCE_COUNTS.
GROUP, LAST, SEEN, REQUEST, BEGIN, COUNTED, PROPOSED, KNOWN = range(8)
LIVE_COLUMNS = 8

REFERENCE_COUNTS = (0, 1, 2, 4, 8, 16)
"""Numbers of sibling references that are told apart, each up to the next."""
# Places of the figures.
DRAFTED, ACCEPTED, DRAFT_STEPS, FULL = range(4)
BY_SOURCE = 4
BY_REFERENCES = BY_SOURCE + 2 * len(SOURCES)
FIGURES = BY_REFERENCES + 2 * len(REFERENCE_COUNTS)

ADAPTIVE, LIKELY, NOTHING, ASLEEP = range(4)
LIKELY_CHANCE = 0.4
"""What a step drafts whose purpose is to be measured, and every step where lengths are not adapted."""


class Tables(NamedTuple):
    """All that a step reads and writes. groups int32 (groups, GROUP_COLUMNS), live int32 (slots, LIVE_COLUMNS),
    weights float64 (slots), figures float64 (FIGURES), totals: scratch of `choose`."""

    arena: Arena
    groups: NDArray[np.int32]
    live: NDArray[np.int32]
    weights: NDArray[np.float64]
    acceptance: Acceptance
    costs: Costs
    found: Candidates
    figures: NDArray[np.float64]
    totals: NDArray[np.float64]


@compiled
def reference_place(references):
    """The place in REFERENCE_COUNTS of a number of references."""
    at = 0
    while at + 1 < len(REFERENCE_COUNTS) and references >= REFERENCE_COUNTS[at + 1]:
        at += 1
    return at


@compiled
def book(tables, slot, gained, came_true):
    """Adds to the figures what the last proposal for a request brought."""
    figures, drafted = tables.figures, tables.found.drafted[slot]
    place = BY_REFERENCES + 2 * tables.live[slot, KNOWN]
    figures[place] += 1
    figures[place + 1] += gained
    if drafted > 0:
        accepted = min(came_true, drafted)
        figures[DRAFTED] += drafted
        figures[ACCEPTED] += accepted
        figures[DRAFT_STEPS] += 1
        place = BY_SOURCE + 2 * tables.found.sources[slot]
        figures[place] += drafted
        figures[place + 1] += accepted


@compiled
def take(tables, slot, tokens, stop):
    """Learns from and appends what a request has gained: tokens[SEEN:stop]."""
    live = tables.live
    start = live[slot, SEEN]
    if live[slot, PROPOSED]:
        book(tables, slot, stop - start, observe(tables.acceptance, tables.found, slot, tokens, start, stop))
        live[slot, PROPOSED] = 0
    live[slot, SEEN] = stop
    group = live[slot, GROUP]
    if not live[slot, COUNTED] and stop > live[slot, BEGIN]:
        live[slot, COUNTED] = 1
        tables.groups[group, REFERENCES] += 1
    if live[slot, LAST] == 0:
        return
    last, place = append(tables.arena, tables.groups, group, live[slot, REQUEST], live[slot, LAST], tokens, start, stop)
    live[slot, LAST] = last
    if place < stop:  # without memory this request gets no drafts until it is opened again
        live[slot, LAST] = 0
        tables.figures[FULL] += 1


@compiled
def renew(tables, slot, tokens, stop, way):
    """Takes what a request has gained and, unless asleep, proposes for it anew."""
    live, found = tables.live, tables.found
    if stop > live[slot, SEEN]:
        take(tables, slot, tokens, stop)
    found.lengths[slot] = 0
    found.drafted[slot] = 0
    if live[slot, LAST] != 0 and way != ASLEEP:
        propose(tables.arena, tables.acceptance, found, slot, live[slot, LAST], live[slot, REQUEST])
    live[slot, KNOWN] = reference_place(tables.groups[live[slot, GROUP], REFERENCES] - live[slot, COUNTED])
    live[slot, PROPOSED] = 1


@compiled
def step(tables, slots, token_ids, rows, ends, seconds, way, own, out):
    """Takes what each slot gained, token_ids[rows, SEEN:ends], and writes drafts into `out`; see Drafter.step."""
    found = tables.found
    if seconds > 0.0:
        verified = 0
        for slot in slots:
            verified += found.drafted[slot]
        measure(tables.costs, len(slots), verified, seconds)
    for number, slot in enumerate(slots):
        renew(tables, slot, token_ids[rows[number]], ends[number], way)
    if way == ADAPTIVE:
        choose(tables.costs, found, slots, tables.weights, tables.totals, own)
    elif way == LIKELY:
        choose_likely(found, slots, LIKELY_CHANCE)
    for number, slot in enumerate(slots):
        for place in range(found.drafted[slot]):
            out[number, place] = found.tokens[slot, place]
