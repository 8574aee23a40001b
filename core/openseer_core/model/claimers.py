"""The workers that claim: when each was last seen, and how many tokens one request may have there."""

from collections import Counter

from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue.kv_blocks import UNLIMITED

FREE_WINDOW = 8
"""Free workers that are looked at, the fastest first, for one that may be given what another has."""


class Claimers:
    """Fresh workers by name. Their limits differ where their KV caches do; a worker whose limit is not known may take
    anything."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._limits: dict[str, int] = {}
        self._free = SortedSet()
        """Those whose last claim found nothing, by their pace, the fastest first: its negative is the score."""
        self._in_vain: dict[str, tuple[str, ...]] = {}
        """The versions that they last claimed requests of and found none."""
        self._having: Counter[int] = Counter()
        """How many workers have each limit: as many entries as there are sizes of engines."""

    def count_in(self, name: str, limit: int | None, now: float) -> None:
        """The worker claims; `limit`: tokens of one request there, prompt and response together."""
        self._seen[name] = now
        limit = UNLIMITED if limit is None else limit
        if self._limits.get(name) != limit:
            self._forget_limit(name)
            self._limits[name] = limit
            self._having[limit] += 1

    def note_heartbeat(self, name: str, limit: int | None, now: float, free_pace: float) -> None:
        """The worker claims. `free_pace`: tokens per second that a response gains there, if its last claim found
        nothing; else 0."""
        self.count_in(name, limit, now)
        self._free.discard(name)
        if free_pace > 0:
            self._free.put(name, -free_pace)

    def note_claim(self, name: str, versions: tuple[str, ...], *, found: bool) -> None:
        """Whether the worker's claim of requests of these versions found any."""
        if found:
            self._free.discard(name)
        else:
            self._in_vain[name] = versions

    def count_out(self, name: str) -> None:
        """It does not: it drains, is sick, or left."""
        self._seen.pop(name, None)
        self._in_vain.pop(name, None)
        self._free.discard(name)
        self._forget_limit(name)

    def count_out_silent(self, before: float) -> None:
        """Those that were last seen before then are gone."""
        for name in [name for name, seen in self._seen.items() if seen < before]:
            self.count_out(name)

    def limit(self, name: str) -> int:
        """The worker's limit; 0 while it does not claim."""
        return self._limits.get(name, 0)

    @property
    def largest(self) -> int:
        """The largest limit; 0 without workers."""
        return max(self._having, default=0)

    def free_pace(self, name: str, versions: tuple[str, ...]) -> float:
        """The pace of the fastest free worker but this one that may be given whatever this one may, which serves these
        versions; 0 without any. One whose versions are not known may be given anything."""
        limit = self.limit(name)
        others = (
            -score
            for score, other in self._free.first(FREE_WINDOW)
            if other != name and self.limit(other) >= limit and self._in_vain.get(other, versions) == versions
        )
        return next(others, 0.0)

    def peers(self, limit: int) -> int:
        """How many workers may be given whatever one of this limit may."""
        return sum(count for other, count in self._having.items() if other >= limit)

    def _forget_limit(self, name: str) -> None:
        limit = self._limits.pop(name, None)
        if limit is not None:
            self._having[limit] -= 1
            if not self._having[limit]:
                del self._having[limit]
