"""Replays recorded responses with drafts: counts drafted and accepted tokens, and their cost."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openseer_draft.drafter import Drafter
from support.drafters.arctic import suffix_decoding_cache

Tokens = NDArray[np.int32]
_MEASUREMENTS = 8


@dataclass(eq=False)
class Row:
    """A replayed response: `tokens` of prompt and response, of which `known` are generated, `fresh` of them by
    the last step."""

    group: int
    index: int
    tokens: Tokens
    start: int
    known: int
    fresh: int = 1
    slot: int = -1

    @classmethod
    def of(cls, group: int, index: int, prompt: Tokens, response: Tokens, known: int = 1) -> "Row":
        """With the first `known` tokens of the response generated."""
        return cls(group, index, np.concatenate([prompt, response]), len(prompt), len(prompt) + known)

    @property
    def ended(self) -> bool:
        return self.known >= len(self.tokens)


@dataclass(frozen=True)
class Draft:
    """Tokens; in a tree each with its parent's position, -1 for the root's."""

    tokens: Sequence[int]
    parents: Sequence[int] | None = None

    def accepted(self, truth: Tokens) -> int:
        """The number of drafted tokens that are accepted."""
        if self.parents is None:
            count = 0
            for drafted, true in zip(self.tokens, truth.tolist(), strict=False):
                if drafted != true:
                    break
                count += 1
            return count
        children = {
            (parent, token): at for at, (parent, token) in enumerate(zip(self.parents, self.tokens, strict=True))
        }
        at, count = -1, 0
        while count < len(truth) and (at := children.get((at, int(truth[count])), -2)) >= 0:
            count += 1
        return count


class Peer(Protocol):
    """A drafter. `clock`: seconds that drafting took in each step, without the engine's own work."""

    clock: list[float]

    def know(self, group: int, index: int, prompt: Tokens, response: Tokens) -> None:
        """Takes a complete response of another request."""
        ...

    def open(self, row: Row) -> None:
        """Begins a request; all of its tokens but the last `fresh` are known from now on."""
        ...

    def step(self, rows: list[Row], seconds: float) -> list[Draft]:
        """Takes the fresh tokens of each row and drafts for each. `seconds`: duration of the last step."""
        ...

    def close(self, row: Row) -> None:
        """Ends a request."""
        ...


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by its number of computed tokens. The numbers are those of a memory-bound decoder."""

    fixed: float = 0.010
    per_token: float = 0.00005

    def seconds(self, tokens: int) -> float:
        return self.fixed + self.per_token * tokens


@dataclass
class Outcome:
    """The results of a replay. `seconds`: by the step-time model; `came_true`: number of request-steps by the number of
    accepted tokens."""

    steps: int = 0
    request_steps: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    seconds: float = 0.0
    came_true: Counter[int] = field(default_factory=Counter[int])

    def add(self, other: "Outcome") -> None:
        """Adds the results of another replay."""
        self.steps += other.steps
        self.request_steps += other.request_steps
        self.drafted += other.drafted
        self.accepted += other.accepted
        self.tokens += other.tokens
        self.seconds += other.seconds
        self.came_true += other.came_true

    def rates(self) -> dict[str, float]:
        """Rates; `tokens_per_step` counts the bonus token."""
        return {
            "tokens_per_step": self.tokens / self.request_steps,
            "drafted_per_step": self.drafted / self.request_steps,
            "accepted_per_step": self.accepted / self.request_steps,
            "accepted_per_drafted": self.accepted / max(1, self.drafted),
            "tokens_per_model_second": self.tokens / self.seconds,
        }

    def positions(self, most: int) -> list[float]:
        """For each position of a draft the share of request-steps that accept it and all before it."""
        counts = [sum(n for length, n in self.came_true.items() if length > at) for at in range(most)]
        return [round(count / self.request_steps, 3) for count in counts]


def replay(peer: Peer, todo: Iterable[Row], slots: int, model: StepTime, steps: int | None = None) -> Outcome:
    """Generates the rows in their order, at most `slots` at once, to the end or for a number of steps."""
    waiting, running, outcome = iter(todo), list[Row](), Outcome()
    last = 0.0
    while steps is None or outcome.steps < steps:
        while len(running) < slots and (row := next(waiting, None)) is not None:
            peer.open(row)
            running.append(row)
        if not running:
            break
        drafts = peer.step(running, last)
        outcome.steps += 1
        last = model.seconds(len(running) + sum(len(draft.tokens) for draft in drafts))
        outcome.seconds += last
        for row, draft in zip(running, drafts, strict=True):
            _verify(row, draft, outcome)
        for row in [row for row in running if row.ended]:
            peer.close(row)
            running.remove(row)
    return outcome


def _verify(row: Row, draft: Draft, outcome: Outcome) -> None:
    truth = row.tokens[row.known : row.known + len(draft.tokens) + 1]
    accepted = draft.accepted(truth)
    row.fresh = min(accepted + 1, len(truth))
    row.known += row.fresh
    outcome.request_steps += 1
    outcome.drafted += len(draft.tokens)
    outcome.accepted += accepted
    outcome.came_true[accepted] += 1
    outcome.tokens += row.fresh


class Ours:
    """The product's drafter, which learns the step-time model as from a worker's measurements at the start."""

    def __init__(self, slots: int, most_tokens: int, longest: int, model: StepTime | None, memory: int = 2**30) -> None:
        self.drafter = Drafter(slots=slots, max_tokens=most_tokens, memory_bytes=memory, adaptive=model is not None)
        self.clock: list[float] = []
        self._tokens = np.zeros((slots, longest), np.int32)
        self._free = list(range(slots))
        self._drafter_slots: dict[int, int] = {}
        if model is not None:
            self._teach(slots, most_tokens, model)

    def _teach(self, slots: int, most_tokens: int, model: StepTime) -> None:
        for _ in range(_MEASUREMENTS):
            for rows in (2**power for power in range(slots.bit_length() + 1)):
                for drafted in (0, rows // 8, rows // 2, *(rows * length for length in range(1, most_tokens + 1))):
                    self.drafter.costs.learn(rows, drafted, model.seconds(rows + drafted))

    def know(self, group: int, index: int, prompt: Tokens, response: Tokens) -> None:
        self.drafter.append(str(group), index, 0, response.tobytes())

    def open(self, row: Row) -> None:
        row.slot = self._free.pop()
        before = row.tokens[: row.known - row.fresh]
        self._tokens[row.slot, : len(before)] = before
        self._drafter_slots[row.slot] = self.drafter.open(str(row.group), row.index, before, row.start)

    def step(self, rows: list[Row], seconds: float) -> list[Draft]:
        at = np.array([row.slot for row in rows], np.int32)
        for row in rows:
            self._tokens[row.slot, row.known - row.fresh : row.known] = row.tokens[row.known - row.fresh : row.known]
        ends = np.array([row.known for row in rows], np.int32)
        slots = np.array([self._drafter_slots[row.slot] for row in rows], np.int32)
        started = time.perf_counter()
        drafts = self.drafter.step(slots, self._tokens, at, ends, seconds)
        tokens = [row[:length] for row, length in zip(drafts.tokens.tolist(), drafts.lengths.tolist(), strict=True)]
        self.clock.append(time.perf_counter() - started)
        return [Draft(part) for part in tokens]

    def close(self, row: Row) -> None:
        self.drafter.close(self._drafter_slots.pop(row.slot))
        self._free.append(row.slot)


class Lengths(Protocol):
    """A policy of draft lengths, for a peer without one."""

    def limits(self, rows: list[Row]) -> list[int]:
        """The maximum number of drafted tokens for each row in this step."""
        ...

    def learn(self, drafted: int, accepted: int) -> None:
        """Takes the outcome of one draft of the last step."""
        ...


@dataclass(frozen=True)
class Static:
    """Constant limits, under arctic-inference's names."""

    most_tokens: int = 16
    factor: float = 1.0
    probability: float = 0.1
    tree: bool = False

    def limits(self, rows: list[Row]) -> list[int]:
        return [self.most_tokens] * len(rows)

    def learn(self, drafted: int, accepted: int) -> None:
        """Does nothing."""


class Arctic:
    """arctic-inference as vLLM's method `suffix` drives it: one tree of all responses and one of each request.

    `apart`: a cache for each group, so that drafts are looked up in siblings only.
    """

    def __init__(self, static: Static, lengths: Lengths | None = None, depth: int = 64, *, apart: bool = True) -> None:
        self.clock: list[float] = []
        self._new = suffix_decoding_cache()
        self._static, self._lengths, self._depth, self._apart = static, lengths or static, depth, apart
        self._drafted: dict[Row, int] = {}
        self.caches: dict[int, Any] = {}

    def _cache(self, group: int) -> Any:
        key = group if self._apart else 0
        if key not in self.caches:
            self.caches[key] = self._new(self._depth)
        return self.caches[key]

    def know(self, group: int, index: int, prompt: Tokens, response: Tokens) -> None:
        cache, name = self._cache(group), (group, index)
        cache.start_request(name, prompt)
        cache.add_active_response(name, response)
        cache.stop_request(name)

    def open(self, row: Row) -> None:
        cache, name = self._cache(row.group), (row.group, row.index)
        cache.start_request(name, row.tokens[: row.start])
        if row.known - row.fresh > row.start:
            cache.add_active_response(name, row.tokens[row.start : row.known - row.fresh])

    def step(self, rows: list[Row], seconds: float) -> list[Draft]:
        limits = self._limits(rows)
        started = time.perf_counter()
        found = [self._speculate(row, limit) for row, limit in zip(rows, limits, strict=True)]
        self.clock.append(time.perf_counter() - started)
        drafts = [Draft(draft.token_ids, draft.parents if self._static.tree else None) for draft in found]
        self._drafted = {row: len(draft.tokens) for row, draft in zip(rows, drafts, strict=True)}
        return drafts

    def _limits(self, rows: list[Row]) -> list[int]:
        for row in rows:
            if drafted := self._drafted.get(row, 0):
                self._lengths.learn(drafted, min(row.fresh - 1, drafted))
        return self._lengths.limits(rows)

    def _speculate(self, row: Row, limit: int) -> Any:
        cache, name, static = self._cache(row.group), (row.group, row.index), self._static
        cache.add_active_response(name, row.tokens[row.known - row.fresh : row.known])
        return cache.speculate(
            name,
            row.tokens[max(0, row.known - self._depth) : row.known],
            max_spec_tokens=limit,
            max_spec_factor=static.factor,
            min_token_prob=static.probability,
            use_tree_spec=static.tree,
        )

    def close(self, row: Row) -> None:
        self._cache(row.group).stop_request((row.group, row.index))

    def memory_bytes(self) -> int:
        """Memory of its trees, as they report it, in bytes."""
        trees = [tree for cache in self.caches.values() for tree in (cache._global_tree, *cache._local_trees.values())]  # pyright: ignore[reportPrivateUsage]
        return sum(tree.estimate_memory() for tree in trees)
