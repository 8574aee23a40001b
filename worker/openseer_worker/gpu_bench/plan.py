"""The plan of measurements, the most valuable first; and the remaining part of it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

STOCK, AGAIN, DRAFTS, NGRAM, SUFFIX = "stock", "stock again", "drafts", "ngram", "suffix"
WAYS = (STOCK, DRAFTS, NGRAM, SUFFIX)
"""The ways that --ways allows; `stock again` is measured with `stock`."""
SMOKE, EXACTNESS = "smoke test", "exactness"
LENGTHS: dict[str, tuple[int, ...]] = {
    STOCK: (0,),
    AGAIN: (0,),
    DRAFTS: (8, 3, 1, 0),
    NGRAM: (8, 3, 1),
    SUFFIX: (8,),
}
"""Drafts per request by way. vLLM's `suffix` cannot change them while it runs."""
EXACT_BATCH = 128
"""Concurrent requests of the exactness test."""
BATCHES = (1, 8, 32, 128, 256)
_BY_VALUE = (8, 128, 32, 1, 256)
"""8 is like a rollout's tail, where drafts help most; at about 128 they may not pay any longer."""
_ORDER = (SMOKE, STOCK, DRAFTS, AGAIN, EXACTNESS, NGRAM, SUFFIX)
"""`stock again` after `drafts`, so that a drift of the machine shows as a difference between the two."""


@dataclass(frozen=True, order=True)
class Part:
    """One measurement: a way, a batch, and the number of drafts for each request."""

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
    """The remaining jobs, in order. `settled`: smoke test and exactness if done, and ways that cannot run."""
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
    """All measurements of a way; batches in the order of _BY_VALUE, then the other ones."""
    order = {batch: place for place, batch in enumerate(_BY_VALUE)}
    ranked = sorted(dict.fromkeys(batches), key=lambda batch: (order.get(batch, len(order)), batch))
    return [Part(way, batch, drafts) for batch in ranked for drafts in LENGTHS.get(way, ())]


def limit_seconds(left: float, whole: float) -> float:
    """Time limit of a process, in seconds: one that hangs must not take the others' time."""
    return min(left, max(60.0, 0.4 * whole))
