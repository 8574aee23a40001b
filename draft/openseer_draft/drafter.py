"""The drafter of a worker: automata of the groups that it runs, fed by its own steps and other workers' tokens."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openseer_draft import arena as memory
from openseer_draft.acceptance import SOURCES, new_acceptance
from openseer_draft.arena import EARLIER, GROUP_COLUMNS, PROMPT, REFERENCES, ROOT
from openseer_draft.automaton import append, follow
from openseer_draft.candidates import FIRST_RECENT, new_candidates
from openseer_draft.lengths import BINS, Costs, fill, measure, new_costs, seconds_of
from openseer_draft.step import (
    ACCEPTED,
    ADAPTIVE,
    ASLEEP,
    BEGIN,
    BY_REFERENCES,
    BY_SOURCE,
    COUNTED,
    DRAFT_STEPS,
    DRAFTED,
    FIGURES,
    FULL,
    GROUP,
    LAST,
    LIKELY,
    LIVE_COLUMNS,
    NOTHING,
    REFERENCE_COUNTS,
    REQUEST,
    SEEN,
    Tables,
    step,
)

Tokens = NDArray[np.int32]

FIRST_GROUPS = 64
NO_GROUP = 0
"""The row of live requests whose group found no memory; it never has an automaton."""
FOLLOWED_STEPS = 16
"""What drafting itself takes is the mean over about so many steps."""
HEADROOM = 16
"""Groups that nobody needs go while less than this part of the memory is free."""
MEASURE_EVERY = 128
"""After so many steps two draft nothing, or what is likely where nothing seemed to pay: so T stays known on both
sides. The second of the two counts: into the first falls what the engine still does for the step before."""
FRUITLESS_STEPS = 16
ASLEEP_STEPS = 64
"""When drafting has not paid for so many steps in a row, no drafts are looked for in so many; texts are still taken."""


@dataclass(slots=True)
class _Response:
    """One response in an automaton: how many tokens are there, where they end, whether it counts as a reference."""

    known: int = 0
    last: int = 0
    counted: bool = False


@dataclass(slots=True)
class _Group:
    """An automaton. `begin`: the state behind the prompt, 0 before the prompt is known."""

    row: int
    begin: int = 0
    live: int = 0
    responses: dict[int, _Response] = field(default_factory=dict[int, _Response])


@dataclass(frozen=True, slots=True)
class Drafts:
    """What a step proposes: tokens int32 (requests, longest draft), of which lengths int32 (requests) are meant."""

    tokens: Tokens
    lengths: Tokens


class StepCosts:
    """T: how long a step takes that verifies so many draft tokens for so many requests, learned from steps."""

    def __init__(self) -> None:
        self.tables: Costs = new_costs()

    def learn(self, requests: int, drafted: int, seconds: float) -> None:
        """Takes in one step that was measured on purpose, before there is work."""
        measure(self.tables, requests, drafted, seconds)
        fill(self.tables)

    def seconds(self, requests: int, drafted: int) -> float:
        """What such a step is expected to take."""
        return float(seconds_of(self.tables, requests, drafted))


class Drafter:
    """Drafts for at most `slots` live requests, each at most `max_tokens` long, within `memory_bytes`.

    One thread at a time. `adaptive`: lengths follow what a step costs (see lengths); otherwise every token is drafted
    that is accepted with a chance of LIKELY_CHANCE.
    """

    def __init__(self, *, slots: int, max_tokens: int, memory_bytes: int, adaptive: bool = True) -> None:
        self.costs = StepCosts()
        self._adaptive = adaptive
        self._groups: dict[str, _Group] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._rows = list(range(FIRST_GROUPS - 1, NO_GROUP, -1))
        self._slots: list[tuple[str, int] | None] = [None] * slots
        self._live: set[tuple[str, int]] = set()
        self._free = list(range(slots - 1, -1, -1))
        self._seconds = 0.0
        self._steps = 0
        self._step_seconds = 0.0
        self._fruitless = 0
        self._tables = Tables(
            memory.new_arena(memory_bytes),
            np.zeros((FIRST_GROUPS, GROUP_COLUMNS), np.int32),
            np.zeros((slots, LIVE_COLUMNS), np.int32),
            np.ones(slots),
            new_acceptance(),
            self.costs.tables,
            new_candidates(slots, max_tokens),
            np.zeros(FIGURES),
            np.zeros((2, BINS)),
        )

    # ---- what other workers and earlier iterations wrote

    def append(self, group: str, index: int, position: int, tokens: bytes) -> int:
        """Another worker's tokens (int32 bytes) of response `index`, from its token `position` on.

        What is known already is cut. Behind a gap the response goes on as a text of its own. Returns how many tokens
        of the response are known; fewer than given when the memory is full. A response that is live here only grows
        by its own steps.
        """
        own = self._group(group)
        if own is None:
            return 0
        response = own.responses.setdefault(index, _Response())
        new = _read(tokens)[max(0, response.known - position) :]
        start = max(position, response.known)
        if not len(new) or self._is_live(group, index):
            return response.known
        if start > response.known or not response.last:
            response.last = (own.begin or self._root(own)) if start == 0 else self._root(own)
        response.last, done = self._append(own, index + 1, response.last, new)
        response.known = start + done
        self._count(own, response)
        return response.known

    def seed(self, group: str, responses: list[bytes]) -> None:
        """Responses of earlier iterations to the same prompt, int32 bytes each, newest first."""
        own = self._group(group)
        if own is None:
            return
        for tokens in reversed(responses):  # the newest last: of equally frequent tokens the latest one is preferred
            self._append(own, EARLIER, own.begin or self._root(own), _read(tokens))

    def known(self, group: str) -> dict[int, int]:
        """How many tokens of each response are known, by its index."""
        own = self._groups.get(group)
        return {index: response.known for index, response in own.responses.items()} if own else {}

    def release(self, group: str) -> None:
        """Nobody here needs the group any more; it stays until memory is short."""
        own = self._groups.get(group)
        if own is not None and not own.live:
            self._idle[group] = None

    # ---- live requests

    def open(self, group: str, index: int, context: Tokens, response_start: int) -> int:
        """A live request with its whole text so far, `context` int32 (tokens): prompt and response.

        Returns its slot. Raises ValueError when all slots are taken.
        """
        if not self._free:
            raise ValueError(f"all {len(self._slots)} slots are taken")
        slot = self._free.pop()
        self._slots[slot] = (group, index)
        self._live.add((group, index))
        own = self._group(group)
        live = self._tables.live
        live[slot] = 0
        live[slot, (SEEN, REQUEST, BEGIN)] = len(context), index + 1, response_start
        self._tables.weights[slot] = 1.0
        self._tables.found.recent[slot] = FIRST_RECENT
        self._tables.found.lengths[slot] = self._tables.found.drafted[slot] = 0
        if own is None:
            return slot
        own.live += 1
        self._idle.pop(group, None)
        response = own.responses.setdefault(index, _Response())
        last, done = self._locate(own, index, response, context, response_start)
        response.known, response.last = len(context) - response_start, last
        self._count(own, response)
        live[slot, GROUP] = own.row
        live[slot, LAST] = last if done == len(context) else 0
        live[slot, COUNTED] = response.counted
        return slot

    def close(self, slot: int) -> None:
        """The request of this slot is not live here any more."""
        held = self._slots[slot]
        if held is None:
            return
        self._slots[slot] = None
        self._live.discard(held)
        self._free.append(slot)
        row = self._tables.live[slot]
        if row[GROUP] == NO_GROUP:
            return
        own = self._groups[held[0]]
        response = own.responses[held[1]]
        response.known, response.last = int(row[SEEN] - row[BEGIN]), int(row[LAST])
        response.counted = bool(row[COUNTED])
        own.live -= 1
        if not own.live:
            self._idle[held[0]] = None

    def weigh(self, slot: int, weight: float) -> None:
        """How much a token of this request is worth, 1 as a rule."""
        self._tables.weights[slot] = weight

    def step(self, slots: Tokens, token_ids: Tokens, rows: Tokens, ends: Tokens, seconds: float = 0.0) -> Drafts:
        """Proposes for all live requests of a step, from what each has gained by the last one.

        slots int32 (requests); token_ids int32 (rows, longest text): the engine's table of texts, read at `rows` int32
        (requests) up to `ends` int32 (requests). `seconds`: what the last step took, if it only verified what was
        proposed for exactly these requests; else 0.
        """
        began = time.perf_counter()
        self._make_room()
        self._steps += 1
        if self._steps % MEASURE_EVERY in (1, 3):
            seconds = 0.0
        way = self._way()
        out = np.empty((len(slots), self._tables.found.tokens.shape[1]), np.int32)
        step(self._tables, slots, token_ids, rows, ends, seconds, way, self._step_seconds, out)
        lengths = self._tables.found.drafted[slots]
        self._rest(way, paid=bool(lengths.any()))
        spent = time.perf_counter() - began
        self._seconds += spent
        if way == ADAPTIVE and self._steps > 1:  # the first one may compile
            self._step_seconds += (spent - self._step_seconds) / FOLLOWED_STEPS
        return Drafts(out, lengths)

    def figures(self) -> dict[str, float]:
        """Counters since the start, and levels (draft_bytes, draft_groups)."""
        values = self._tables.figures
        told = {
            "drafted_tokens": values[DRAFTED],
            "accepted_tokens": values[ACCEPTED],
            "draft_steps": values[DRAFT_STEPS],
            "draft_full": values[FULL],
            "draft_seconds": round(self._seconds, 4),
            "draft_bytes": memory.used_bytes(self._tables.arena),
            "draft_groups": len(self._groups),
        }
        for number, source in enumerate(SOURCES):
            told[f"drafted_{source}"], told[f"accepted_{source}"] = values[BY_SOURCE + 2 * number :][:2]
        for number, count in enumerate(REFERENCE_COUNTS):
            told[f"steps_refs_{count}"], told[f"tokens_refs_{count}"] = values[BY_REFERENCES + 2 * number :][:2]
        return {name: float(value) for name, value in told.items()}

    # ---- inside

    def _way(self) -> int:
        if not self._adaptive:
            return LIKELY
        if self._fruitless >= FRUITLESS_STEPS:
            return ASLEEP
        if self._steps % MEASURE_EVERY > 1:
            return ADAPTIVE
        return LIKELY if self._fruitless else NOTHING

    def _rest(self, way: int, *, paid: bool) -> None:
        """Counts steps in which nothing paid; after ASLEEP_STEPS of sleep a few may try again."""
        if way == ASLEEP and self._fruitless >= FRUITLESS_STEPS + ASLEEP_STEPS:
            self._fruitless = FRUITLESS_STEPS // 2
        elif way == ASLEEP or (way == ADAPTIVE and not paid):
            self._fruitless += 1
        elif way == ADAPTIVE:
            self._fruitless = 0

    def _group(self, name: str) -> _Group | None:
        """The group of that name, made if need be; None without memory."""
        own = self._groups.get(name)
        if own is not None:
            return own
        self._make_room()
        if not self._rows:
            self._more_rows()
        own = _Group(self._rows[-1])
        if not memory.new_group(self._tables.arena, self._tables.groups, own.row):
            return None
        self._rows.pop()
        self._groups[name] = own
        return own

    def _more_rows(self) -> None:
        groups = self._tables.groups
        self._rows = list(range(2 * len(groups) - 1, len(groups) - 1, -1))
        self._tables = self._tables._replace(groups=np.concatenate([groups, np.zeros_like(groups)]))

    def _make_room(self) -> None:
        """Lets the groups go that have been idle longest, while memory is short."""
        arena = self._tables.arena
        while self._idle and (
            arena.counters[memory.STATES_LIVE] * HEADROOM > len(arena.states) * (HEADROOM - 1)
            or arena.counters[memory.EDGES_LIVE] * HEADROOM > len(arena.edges) * (HEADROOM - 1)
        ):
            name, _ = self._idle.popitem(last=False)
            own = self._groups.pop(name)
            memory.free_group(arena, self._tables.groups, own.row)
            self._rows.append(own.row)

    def _locate(self, own: _Group, index: int, response: _Response, context: Tokens, start: int) -> tuple[int, int]:
        """Where the text of a request ends in its automaton; what is not there yet is appended: (state, tokens)."""
        if not own.begin:
            own.begin, done = self._append(own, PROMPT, self._root(own), context[:start])
            if done < start:
                return own.begin, done
        there = start + min(response.known, len(context) - start)
        last, place = follow(self._tables.arena, own.begin, context, start, there)
        last, done = self._append(own, index + 1, int(last), context[place:])
        return last, int(place) + done

    def _append(self, own: _Group, owner: int, last: int, tokens: Tokens) -> tuple[int, int]:
        """(New last state, tokens appended); idle groups go when there is no room."""
        self._make_room()
        state, done = append(
            self._tables.arena, self._tables.groups, own.row, owner, np.int32(last), tokens, 0, len(tokens)
        )
        return int(state), int(done)

    def _root(self, own: _Group) -> int:
        return int(self._tables.groups[own.row, ROOT])

    def _count(self, own: _Group, response: _Response) -> None:
        if response.known and not response.counted:
            response.counted = True
            self._tables.groups[own.row, REFERENCES] += 1

    def _is_live(self, group: str, index: int) -> bool:
        return (group, index) in self._live


def _read(tokens: bytes) -> Tokens:
    return np.frombuffer(tokens, "<i4").astype(np.int32)
