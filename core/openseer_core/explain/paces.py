"""The pace of responses at each worker, compared with other workers at the same number of concurrent responses."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import log2
from typing import NamedTuple

from openseer_core.explain.counters import Counters

KNOWN_SECONDS = 5.0
"""A pace is compared only with at least this time, in response-seconds, of the worker and of the others at one load."""


class WorkerPace(NamedTuple):
    """A worker's pace. `tokens_per_second`: of one response, 0 if unknown; `ratio`: of this pace to the pace at the
    other workers with the same load, None if unknown."""

    tokens_per_second: float
    ratio: float | None


class _Growth(NamedTuple):
    """Growth of responses: the sums of their seconds of decoding and of their tokens."""

    seconds: float
    tokens: float


_NOTHING = _Growth(0.0, 0.0)


class WorkerGrowth:
    """The growth of responses at one worker, by load (the rounded log2 of the number of concurrent responses).

    The time for computing contexts is left out, because it depends on the prompts and not on the worker's speed.
    """

    def __init__(self) -> None:
        self.loads: dict[int, _Growth] = {}

    def note(self, before: Counters, after: Counters) -> None:
        """Adds the growth between two samples; ignores samples of different boots, and without counters of seconds."""
        if before.seconds is None or after.seconds is None or before.boot != after.boot:
            return
        running = after.seconds.running - before.seconds.running
        responses = after.seconds.responses - before.seconds.responses
        computing = after.contexts.compute_seconds - before.contexts.compute_seconds
        decoding = 1 - computing / running if running > 0 else 0.0
        if decoding > 0 and responses > 0:
            load = round(log2(max(1.0, responses / running)))
            known = self.loads.get(load, _NOTHING)
            seconds, tokens = responses * decoding, after.tokens - before.tokens
            self.loads[load] = _Growth(known.seconds + seconds, known.tokens + tokens)

    def fade(self, factor: float) -> None:
        """Multiplies the growth noted so far by `factor`."""
        self.loads = {load: _Growth(one.seconds * factor, one.tokens * factor) for load, one in self.loads.items()}


def paces(samples: Mapping[str, Iterable[Counters]]) -> dict[str, WorkerPace]:
    """Worker name → pace, from each worker's samples in the order of time."""
    grown: dict[str, WorkerGrowth] = {}
    for name, of_worker in samples.items():
        growth = grown[name] = WorkerGrowth()
        for before, after in pairwise(of_worker):
            growth.note(before, after)
    return compared(grown)


def compared(grown: Mapping[str, WorkerGrowth]) -> dict[str, WorkerPace]:
    """Worker name → pace, from the growth at each worker and at the others."""
    fleet: dict[int, _Growth] = {}
    for growth in grown.values():
        for load, mine in growth.loads.items():
            known = fleet.get(load, _NOTHING)
            fleet[load] = _Growth(known.seconds + mine.seconds, known.tokens + mine.tokens)
    return {name: _pace(growth.loads, fleet) for name, growth in grown.items()}


def _pace(loads: Mapping[int, _Growth], fleet: Mapping[int, _Growth]) -> WorkerPace:
    compared, expected = 0.0, 0.0
    for load, mine in loads.items():
        others, tokens = fleet[load].seconds - mine.seconds, fleet[load].tokens - mine.tokens
        if others >= KNOWN_SECONDS and tokens > 0:
            compared += mine.seconds
            expected += mine.tokens * others / tokens
    seconds = sum(mine.seconds for mine in loads.values())
    pace = sum(mine.tokens for mine in loads.values()) / seconds if seconds else 0.0
    return WorkerPace(pace, expected / compared if compared >= KNOWN_SECONDS else None)
