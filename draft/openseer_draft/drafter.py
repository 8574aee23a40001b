"""The drafter of a worker: it proposes tokens from the group's earlier tokens, and the engine verifies them.

Problem: a step of the engine yields one token per request, and reads all weights for it. To verify several proposed
tokens in the same step costs less than the steps that it saves. But a draft model would need compute of its own, and
would have to be trained together with the policy.

Idea: the responses to one prompt share phrases. A suffix automaton per group contains the prompt, the responses that
run here, the tokens of siblings on other workers, and responses of earlier batches. The state at the end of a response
has its longest match. From this state and its suffixes, the most frequent next tokens form paths (`candidates`). A
table converts counts to chances (`acceptance`), and `lengths` chooses the number of verified tokens of each path.

Example: a sibling has generated "a b c d", and this response ends in "a b". The path is "c d". With chances of 0.8 for
c and 0.72 for c and d together, it is expected to yield 0.8 + 0.72 = 1.52 accepted tokens. The model samples "c x": c
is accepted, d is not, and the step yields two tokens, c and x, instead of one. The table counts a hit and a miss.

Consequences: drafts change only the speed. The engine accepts a token with the model's own probability, so the sampling
distribution is the same. If drafts have not paid for 16 steps in a row, none are proposed for 64 steps. Source: Seer,
section 3.3, with a draft server for the groups; here each worker has its own automata (docs/decisions/0011).
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openseer_draft import arena as memory
from openseer_draft.acceptance import ORIGINS, new_acceptance
from openseer_draft.arena import CORPUS_SIZE, EARLIER, GROUP_COLUMNS, PROMPT, ROOT
from openseer_draft.automaton import append, follow
from openseer_draft.candidates import FIRST_RECENT, new_candidates
from openseer_draft.lengths import BINS, Costs, fill, measure, new_costs, seconds_of
from openseer_draft.step import (
    ACCEPTED,
    ADAPTIVE,
    ASLEEP,
    BEGIN,
    BY_CORPUS_SIZE,
    BY_ORIGIN,
    CORPUS_SIZES,
    COUNTED,
    DRAFT_STEPS,
    DRAFTED,
    FULL,
    GROUP,
    LAST,
    LIKELY,
    LIVE_COLUMNS,
    METRICS,
    NO_GROUP,
    NOTHING,
    REQUEST,
    SEEN,
    Tables,
    step,
)

Tokens = NDArray[np.int32]

FIRST_GROUPS = 64
"""Initial number of rows for automata; it is doubled when all are in use."""
FOLLOWED_STEPS = 16
"""Number of steps over which the time of drafting is averaged."""
HEADROOM = 16
"""While less than 1 / HEADROOM of the memory is free, groups that are not needed are freed."""
MEASURE_EVERY = 128
"""Interval of measurements, in steps, so that T is known with and without drafts. Two consecutive steps draft nothing,
or, if drafts do not pay, likely tokens. Only the second step is measured: the first includes work of the engine for the
step before."""
FRUITLESS_STEPS = 16
ASLEEP_STEPS = 64
"""After FRUITLESS_STEPS consecutive steps without gain no drafts are proposed for ASLEEP_STEPS; texts still grow."""


@dataclass(slots=True)
class _Response:
    """A response in an automaton. `known`: number of its tokens; `last`: the state after them, 0 without one;
    `counted`: whether the group's CORPUS_SIZE includes it."""

    known: int = 0
    last: int = 0
    counted: bool = False


@dataclass(slots=True)
class _Automaton:
    """The automaton of a group. `row`: in the table of groups; `begin`: the state after the prompt, 0 while the prompt
    is unknown; `live`: number of live requests; `responses`: by index."""

    row: int
    begin: int = 0
    live: int = 0
    responses: dict[int, _Response] = field(default_factory=dict[int, _Response])


@dataclass(frozen=True, slots=True)
class Drafts:
    """The drafts of a step: `tokens` int32 (requests, longest draft), and `lengths` int32 (requests), in tokens."""

    tokens: Tokens
    lengths: Tokens


class StepCosts:
    """T: the time of a step by its numbers of requests and of verified draft tokens, learned from measured steps."""

    def __init__(self) -> None:
        self.tables: Costs = new_costs()

    def learn(self, requests: int, drafted: int, seconds: float) -> None:
        """Adds a step that was measured before the first request."""
        measure(self.tables, requests, drafted, seconds)
        fill(self.tables)

    def seconds(self, requests: int, drafted: int) -> float:
        """Returns the expected time of a step, in seconds."""
        return float(seconds_of(self.tables, requests, drafted))


class Drafter:
    """Drafts at most `max_tokens` tokens for each of at most `slots` live requests, within `memory_bytes`.

    To be called by one thread at a time. `adaptive`: lengths depend on the cost of a step (see `lengths`); otherwise
    each path is drafted while its chance is at least LIKELY_CHANCE.
    """

    def __init__(self, *, slots: int, max_tokens: int, memory_bytes: int, adaptive: bool = True) -> None:
        self.costs = StepCosts()
        self._adaptive = adaptive
        self._groups: dict[str, _Automaton] = {}
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
            np.zeros(METRICS),
            np.zeros((2, BINS)),
        )

    # ---- tokens of other workers and earlier batches

    def append(self, group: str, index: int, position: int, tokens: bytes) -> int:
        """Adds another worker's tokens (int32, as bytes) of response `index`, from the response's token `position` on.

        Known tokens are skipped. After a gap the response continues as a separate text. A response that is live here
        grows only by its own steps. Returns the number of known tokens of the response; if memory is short, not all of
        the given tokens are known.
        """
        automaton = self._group(group)
        if automaton is None:
            return 0
        response = automaton.responses.setdefault(index, _Response())
        new = _read(tokens)[max(0, response.known - position) :]
        start = max(position, response.known)
        if not len(new) or self._is_live(group, index):
            return response.known
        if start > response.known or not response.last:
            response.last = (automaton.begin or self._root(automaton)) if start == 0 else self._root(automaton)
        response.last, done = self._append(automaton, index + 1, response.last, new)
        response.known = start + done
        self._count(automaton, response)
        return response.known

    def seed(self, group: str, responses: list[bytes]) -> None:
        """Adds earlier batches' responses to the same prompt, newest first; each is int32 tokens as bytes."""
        automaton = self._group(group)
        if automaton is None:
            return
        for tokens in reversed(responses):  # the newest last: among equally frequent tokens the last one is preferred
            self._append(automaton, EARLIER, automaton.begin or self._root(automaton), _read(tokens))

    def known(self, group: str) -> dict[int, int]:
        """Returns the number of known tokens of each response of a group, by the response's index."""
        automaton = self._groups.get(group)
        return {index: response.known for index, response in automaton.responses.items()} if automaton else {}

    def release(self, group: str) -> None:
        """Marks a group as not needed, unless it has live requests; it is freed when memory is short."""
        automaton = self._groups.get(group)
        if automaton is not None and not automaton.live:
            self._idle[group] = None

    # ---- live requests

    def open(self, group: str, index: int, context: Tokens, response_start: int) -> int:
        """Adds a live request with its text so far, `context` int32 (tokens): prompt and, from `response_start` on,
        response.

        Returns the request's slot. Raises ValueError if all slots are in use.
        """
        if not self._free:
            raise ValueError(f"all {len(self._slots)} slots are taken")
        slot = self._free.pop()
        self._slots[slot] = (group, index)
        self._live.add((group, index))
        automaton = self._group(group)
        live = self._tables.live
        live[slot] = 0
        live[slot, (SEEN, REQUEST, BEGIN)] = len(context), index + 1, response_start
        self._tables.importance[slot] = 1.0
        self._tables.found.recent[slot] = FIRST_RECENT
        self._tables.found.lengths[slot] = self._tables.found.drafted[slot] = 0
        if automaton is None:
            return slot
        automaton.live += 1
        self._idle.pop(group, None)
        response = automaton.responses.setdefault(index, _Response())
        last, done = self._locate(automaton, index, response, context, response_start)
        response.known, response.last = len(context) - response_start, last
        self._count(automaton, response)
        live[slot, GROUP] = automaton.row
        live[slot, LAST] = last if done == len(context) else 0
        live[slot, COUNTED] = response.counted
        return slot

    def close(self, slot: int) -> None:
        """Ends the live request in this slot, if there is one."""
        request = self._slots[slot]
        if request is None:
            return
        self._slots[slot] = None
        self._live.discard(request)
        self._free.append(slot)
        row = self._tables.live[slot]
        if row[GROUP] == NO_GROUP:
            return
        automaton = self._groups[request[0]]
        response = automaton.responses[request[1]]
        response.known, response.last = int(row[SEEN] - row[BEGIN]), int(row[LAST])
        response.counted = bool(row[COUNTED])
        automaton.live -= 1
        if not automaton.live:
            self._idle[request[0]] = None

    def set_importance(self, slot: int, importance: float) -> None:
        """Sets the weight of a request's tokens, by default 1."""
        self._tables.importance[slot] = importance

    def step(self, slots: Tokens, token_ids: Tokens, rows: Tokens, ends: Tokens, seconds: float = 0.0) -> Drafts:
        """Adds the tokens that each live request got in the last step, and returns drafts for the next step.

        slots int32 (requests); token_ids int32 (rows, longest text): the engine's table of texts, read at `rows` int32
        (requests) up to `ends` int32 (requests). `seconds`: duration of the last step if it only verified the drafts
        for exactly these requests; otherwise 0.
        """
        began = time.perf_counter()
        self._make_room()
        self._steps += 1
        if self._steps % MEASURE_EVERY in (1, 3):
            seconds = 0.0
        mode = self._mode()
        out = np.empty((len(slots), self._tables.found.tokens.shape[1]), np.int32)
        step(self._tables, slots, token_ids, rows, ends, seconds, mode, self._step_seconds, out)
        lengths = self._tables.found.drafted[slots]
        self._count_fruitless(mode, paid=bool(lengths.any()))
        spent = time.perf_counter() - began
        self._seconds += spent
        if mode == ADAPTIVE and self._steps > 1:  # the first step may compile
            self._step_seconds += (spent - self._step_seconds) / FOLLOWED_STEPS
        return Drafts(out, lengths)

    def metrics(self) -> dict[str, float]:
        """Returns the counters since the start, and the present draft_bytes and draft_groups."""
        values = self._tables.metrics
        metrics = {
            "drafted_tokens": values[DRAFTED],
            "accepted_tokens": values[ACCEPTED],
            "draft_steps": values[DRAFT_STEPS],
            "draft_full": values[FULL],
            "draft_seconds": round(self._seconds, 4),
            "draft_bytes": memory.used_bytes(self._tables.arena),
            "draft_groups": len(self._groups),
        }
        for number, origin in enumerate(ORIGINS):
            metrics[f"drafted_{origin}"], metrics[f"accepted_{origin}"] = values[BY_ORIGIN + 2 * number :][:2]
        for number, size in enumerate(CORPUS_SIZES):
            metrics[f"steps_refs_{size}"], metrics[f"tokens_refs_{size}"] = values[BY_CORPUS_SIZE + 2 * number :][:2]
        return {name: float(value) for name, value in metrics.items()}

    # ---- inside

    def _mode(self) -> int:
        if not self._adaptive:
            return LIKELY
        if self._fruitless >= FRUITLESS_STEPS:
            return ASLEEP
        if self._steps % MEASURE_EVERY > 1:
            return ADAPTIVE
        return LIKELY if self._fruitless else NOTHING

    def _count_fruitless(self, mode: int, *, paid: bool) -> None:
        """Counts steps without gain; after ASLEEP_STEPS without drafts a few steps try drafts again."""
        if mode == ASLEEP and self._fruitless >= FRUITLESS_STEPS + ASLEEP_STEPS:
            self._fruitless = FRUITLESS_STEPS // 2
        elif mode == ASLEEP or (mode == ADAPTIVE and not paid):
            self._fruitless += 1
        elif mode == ADAPTIVE:
            self._fruitless = 0

    def _group(self, name: str) -> _Automaton | None:
        """Returns the automaton of a group, created if needed; None if memory is short."""
        automaton = self._groups.get(name)
        if automaton is not None:
            return automaton
        self._make_room()
        if not self._rows:
            self._more_rows()
        automaton = _Automaton(self._rows[-1])
        if not memory.new_group(self._tables.arena, self._tables.groups, automaton.row):
            return None
        self._rows.pop()
        self._groups[name] = automaton
        return automaton

    def _more_rows(self) -> None:
        groups = self._tables.groups
        self._rows = list(range(2 * len(groups) - 1, len(groups) - 1, -1))
        self._tables = self._tables._replace(groups=np.concatenate([groups, np.zeros_like(groups)]))

    def _make_room(self) -> None:
        """Frees groups that are not needed, the first released first, while memory is short."""
        arena = self._tables.arena
        while self._idle and (
            arena.counters[memory.STATES_LIVE] * HEADROOM > len(arena.states) * (HEADROOM - 1)
            or arena.counters[memory.EDGES_LIVE] * HEADROOM > len(arena.edges) * (HEADROOM - 1)
        ):
            name, _ = self._idle.popitem(last=False)
            automaton = self._groups.pop(name)
            memory.free_group(arena, self._tables.groups, automaton.row)
            self._rows.append(automaton.row)

    def _locate(
        self, automaton: _Automaton, index: int, response: _Response, context: Tokens, start: int
    ) -> tuple[int, int]:
        """Appends the missing tokens of a request's text to its automaton; returns (state at the text's end, number of
        tokens up to there)."""
        if not automaton.begin:
            automaton.begin, done = self._append(automaton, PROMPT, self._root(automaton), context[:start])
            if done < start:
                return automaton.begin, done
        there = start + min(response.known, len(context) - start)
        last, followed = follow(self._tables.arena, automaton.begin, context, start, there)
        last, done = self._append(automaton, index + 1, int(last), context[followed:])
        return last, int(followed) + done

    def _append(self, automaton: _Automaton, owner: int, last: int, tokens: Tokens) -> tuple[int, int]:
        """Appends tokens to a text; returns (new last state, number of appended tokens). Frees idle groups if memory is
        short."""
        self._make_room()
        state, done = append(
            self._tables.arena, self._tables.groups, automaton.row, owner, np.int32(last), tokens, 0, len(tokens)
        )
        return int(state), int(done)

    def _root(self, automaton: _Automaton) -> int:
        return int(self._tables.groups[automaton.row, ROOT])

    def _count(self, automaton: _Automaton, response: _Response) -> None:
        if response.known and not response.counted:
            response.counted = True
            self._tables.groups[automaton.row, CORPUS_SIZE] += 1

    def _is_live(self, group: str, index: int) -> bool:
        return (group, index) in self._live


def _read(tokens: bytes) -> Tokens:
    return np.frombuffer(tokens, "<i4").astype(np.int32)
