"""What is measured, the most valuable first; and what of it is left."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

STOCK, AGAIN, DRAFTS, NGRAM, SUFFIX = "stock", "stock again", "drafts", "ngram", "suffix"
WAYS = (STOCK, DRAFTS, NGRAM, SUFFIX)
"""What may be asked for; `stock again` comes with `stock`."""
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
"""Requests at once where exactness is tested."""
BATCHES = (1, 8, 32, 128, 256)
_BY_VALUE = (8, 128, 32, 1, 256)
"""8 is a rollout's tail, for which drafts are made; about 128 they may cease to pay."""
_ORDER = (SMOKE, STOCK, DRAFTS, AGAIN, EXACTNESS, NGRAM, SUFFIX)
"""`stock again` behind `drafts`, for what drifts on a machine to show between the two."""


@dataclass(frozen=True, order=True)
class Part:
    """One measurement: a way, a batch, so many drafts for each request."""

    way: str
    batch: int
    drafts: int


@dataclass(frozen=True)
class WayJob:
    """What one process does: one engine, and all that is still to be measured with it."""

    way: str
    parts: tuple[Part, ...]


def jobs(
    ways: Collection[str], batches: Iterable[int], done: Collection[Part], settled: Collection[str]
) -> list[WayJob]:
    """The jobs that are left, in their order. `settled`: of smoke test and exactness, and of ways that cannot run."""
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
    """All measurements of a way; batches by what they are worth, those that nobody foresaw behind the others."""
    order = {batch: place for place, batch in enumerate(_BY_VALUE)}
    ranked = sorted(dict.fromkeys(batches), key=lambda batch: (order.get(batch, len(order)), batch))
    return [Part(way, batch, drafts) for batch in ranked for drafts in LENGTHS.get(way, ())]


def limit_seconds(left: float, whole: float) -> float:
    """After how long a process is ended: one that hangs must not take the others' time."""
    return min(left, max(60.0, 0.4 * whole))
