"""How fast responses grew at each worker, against the other workers with as many responses at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import log2
from typing import NamedTuple

from openseer_driver.explain.presence import Seen

KNOWN_SECONDS = 5.0
"""Seconds of responses, of a worker and of the others with as many at once, from which on they are compared."""


class WorkerPace(NamedTuple):
    """`tokens_per_second` that a response gained, 0 where it is not known; `ratio`: to what it would have gained at the
    others, None where it is not known."""

    tokens_per_second: float
    ratio: float | None


class _Growth(NamedTuple):
    """What responses gained in a stretch: their number at once as a power of two, their seconds, their tokens."""

    load: int
    seconds: float
    tokens: int


def paces(samples: Mapping[str, Sequence[Seen]]) -> dict[str, WorkerPace]:
    """Of every worker, by its samples. Time for contexts does not count: it says nothing of a worker's speed."""
    by_worker = {name: _summed(_growths(of_worker)) for name, of_worker in samples.items()}
    fleet = _summed(growth for loads in by_worker.values() for growth in loads.values())
    return {name: _pace(loads, fleet) for name, loads in by_worker.items()}


def _pace(loads: Mapping[int, "_Growth"], fleet: Mapping[int, "_Growth"]) -> WorkerPace:
    compared, expected = 0.0, 0.0
    for load, mine in loads.items():
        others, tokens = fleet[load].seconds - mine.seconds, fleet[load].tokens - mine.tokens
        if others >= KNOWN_SECONDS and tokens > 0:
            compared += mine.seconds
            expected += mine.tokens * others / tokens
    seconds = sum(mine.seconds for mine in loads.values())
    pace = sum(mine.tokens for mine in loads.values()) / seconds if seconds else 0.0
    return WorkerPace(pace, expected / compared if compared >= KNOWN_SECONDS else None)


def _summed(growths: Iterable["_Growth"]) -> dict[int, "_Growth"]:
    """By the number of responses at once."""
    found: dict[int, _Growth] = {}
    for growth in growths:
        known = found.get(growth.load, _Growth(growth.load, 0.0, 0))
        found[growth.load] = _Growth(growth.load, known.seconds + growth.seconds, known.tokens + growth.tokens)
    return found


def _growths(samples: Sequence[Seen]) -> Iterator[_Growth]:
    for (_, before), (_, after) in pairwise(samples):
        if before.seconds is None or after.seconds is None or before.boot != after.boot:
            continue
        running = after.seconds.running - before.seconds.running
        responses = after.seconds.responses - before.seconds.responses
        computing = after.contexts.compute_seconds - before.contexts.compute_seconds
        decoding = 1 - computing / running if running > 0 else 0.0
        if decoding > 0 and responses > 0:
            load = round(log2(max(1.0, responses / running)))
            yield _Growth(load, responses * decoding, after.tokens - before.tokens)
