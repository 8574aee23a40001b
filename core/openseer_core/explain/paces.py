"""How fast responses grew at each worker, against the other workers with as many responses at once."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import log2
from typing import NamedTuple

from openseer_core.explain.counters import Counters

KNOWN_SECONDS = 5.0
"""Seconds of responses, of a worker and of the others with as many at once, from which on they are compared."""


class WorkerPace(NamedTuple):
    """`tokens_per_second` that a response gained, 0 where it is not known; `ratio`: to what it would have gained at the
    others, None where it is not known."""

    tokens_per_second: float
    ratio: float | None


class _Growth(NamedTuple):
    """What responses gained: their seconds, their tokens."""

    seconds: float
    tokens: float


_NOTHING = _Growth(0.0, 0.0)


class WorkerGrowth:
    """What responses gained at one worker, by their number at once as a power of two. Time for contexts does not count:
    it says nothing of a worker's speed."""

    def __init__(self) -> None:
        self.loads: dict[int, _Growth] = {}

    def note(self, before: Counters, after: Counters) -> None:
        """A stretch between two of its samples; one over a boot, or without counters, says nothing."""
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
        """What was noted so far counts as so much of itself."""
        self.loads = {load: _Growth(one.seconds * factor, one.tokens * factor) for load, one in self.loads.items()}


def paces(samples: Mapping[str, Iterable[Counters]]) -> dict[str, WorkerPace]:
    """Of every worker, by its samples."""
    grown: dict[str, WorkerGrowth] = {}
    for name, of_worker in samples.items():
        growth = grown[name] = WorkerGrowth()
        for before, after in pairwise(of_worker):
            growth.note(before, after)
    return compared(grown)


def compared(grown: Mapping[str, WorkerGrowth]) -> dict[str, WorkerPace]:
    """Of every worker, by what responses gained there and at the others."""
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
