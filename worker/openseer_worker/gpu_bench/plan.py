"""The plan of measurements, the most valuable ones first, and its remaining part."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

STOCK, AGAIN, DRAFTS, NGRAM, SUFFIX = "stock", "stock again", "drafts", "ngram", "suffix"
WAYS = (STOCK, DRAFTS, NGRAM, SUFFIX)
"""The ways that --ways allows: no drafts, ours, vLLM's two methods. `stock again` belongs to `stock`."""
SMOKE, EXACTNESS = "smoke test", "exactness"
LENGTHS: dict[str, tuple[int, ...]] = {
    STOCK: (0,),
    AGAIN: (0,),
    DRAFTS: (8, 3, 1, 0),
    NGRAM: (8, 3, 1),
    SUFFIX: (8,),
}
"""Draft tokens per request, by way. vLLM's `suffix` cannot change the number while it runs."""
EXACT_BATCH = 128
"""Concurrent requests of the exactness test."""
BATCHES = (1, 8, 32, 128, 256)
_BY_VALUE = (8, 128, 32, 1, 256)
"""The batches, the most valuable first: 8 is like a rollout's tail, where drafts help most; from about 128 on they may
not pay."""
_ORDER = (SMOKE, STOCK, DRAFTS, AGAIN, EXACTNESS, NGRAM, SUFFIX)
"""The order of ways. `stock again` is after `drafts`, so that a drift of the machine's speed shows as a difference
between the two engines without drafts."""


@dataclass(frozen=True, order=True)
class Part:
    """One measurement: a way, a batch (requests), and the number of draft tokens for each request."""

    way: str
    batch: int
    drafts: int


@dataclass(frozen=True)
class WayJob:
    """The work of one process: one engine, and all remaining measurements with it."""

    way: str
    parts: tuple[Part, ...]


def jobs(
    ways: Collection[str], batches: Iterable[int], done: Collection[Part], settled: Collection[str]
) -> list[WayJob]:
    """Returns the remaining jobs, in order. `settled`: smoke test and exactness if done, and ways that cannot run."""
    wanted = set(ways) | ({AGAIN} if STOCK in ways else set()) | {SMOKE} | ({EXACTNESS} if DRAFTS in ways else set())
    left: list[WayJob] = []
    for way in _ORDER:
        if way not in wanted or way in settled:
            continue
        parts = tuple(part for part in parts_of(way, batches) if part not in done)
        if parts or way in (SMOKE, EXACTNESS):
            left.append(WayJob(way, parts))
    return left


def parts_of(way: str, batches: Iterable[int]) -> list[Part]:
    """Returns all measurements of a way: first the batches in _BY_VALUE, in this order, then the others."""
    order = {batch: place for place, batch in enumerate(_BY_VALUE)}
    ranked = sorted(dict.fromkeys(batches), key=lambda batch: (order.get(batch, len(order)), batch))
    return [Part(way, batch, drafts) for batch in ranked for drafts in LENGTHS.get(way, ())]


def limit_seconds(left: float, whole: float) -> float:
    """Returns the time limit of a process, in seconds, so that a hanging process leaves time for others. `left`: the
    run's remaining time; `whole`: its whole time."""
    return min(left, max(60.0, 0.4 * whole))
