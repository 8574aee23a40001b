"""The claiming workers: for each the time of its last claim or heartbeat, and its token limit of one request."""

from collections import Counter

from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue.kv_blocks import UNLIMITED

FREE_WINDOW = 8
"""Number of free workers, the fastest first, among which one is sought that may take another worker's requests."""


class Claimers:
    """Claiming workers by name. Workers with different KV caches have different token limits. A worker without a known
    limit may get any request."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._limits: dict[str, int] = {}
        self._free = SortedSet()
        """Workers whose last claim found nothing, sorted by pace, fastest first: the score is the negative pace."""
        self._in_vain: dict[str, tuple[str, ...]] = {}
        """By worker, the versions of its last claim that found nothing."""
        self._having: Counter[int] = Counter()
        """The number of workers by token limit, without zeros."""

    def count_in(self, name: str, limit: int | None, now: float) -> None:
        """Notes that the worker claims. `limit`: its token limit of one request, prompt and response together."""
        self._seen[name] = now
        limit = UNLIMITED if limit is None else limit
        if self._limits.get(name) != limit:
            self._forget_limit(name)
            self._limits[name] = limit
            self._having[limit] += 1

    def note_heartbeat(self, name: str, limit: int | None, now: float, free_pace: float) -> None:
        """Notes that the worker claims. `free_pace`: the worker's pace (tokens per second of one response) if its last
        claim found nothing; else 0."""
        self.count_in(name, limit, now)
        self._free.discard(name)
        if free_pace > 0:
            self._free.put(name, -free_pace)

    def note_claim(self, name: str, versions: tuple[str, ...], *, found: bool) -> None:
        """Notes whether the worker's claim of these versions found any request."""
        if found:
            self._free.discard(name)
        else:
            self._in_vain[name] = versions

    def count_out(self, name: str) -> None:
        """Removes a worker that does not claim, because it drains, is sick, or has left."""
        self._seen.pop(name, None)
        self._in_vain.pop(name, None)
        self._free.discard(name)
        self._forget_limit(name)

    def count_out_silent(self, before: float) -> None:
        """Removes the workers whose last claim or heartbeat was earlier than `before`."""
        for name in [name for name, seen in self._seen.items() if seen < before]:
            self.count_out(name)

    def limit(self, name: str) -> int:
        """The worker's token limit; 0 while it does not claim."""
        return self._limits.get(name, 0)

    @property
    def largest(self) -> int:
        """The largest token limit; 0 without workers."""
        return max(self._having, default=0)

    def free_pace(self, name: str, versions: tuple[str, ...]) -> float:
        """The pace of the fastest other free worker that may take every request of this worker, which serves
        `versions`; 0 if there is no such worker. A free worker without known versions may take any request."""
        limit = self.limit(name)
        others = (
            -score
            for score, other in self._free.first(FREE_WINDOW)
            if other != name and self.limit(other) >= limit and self._in_vain.get(other, versions) == versions
        )
        return next(others, 0.0)

    def peers(self, limit: int) -> int:
        """The number of workers that may take every request of a worker with this token limit."""
        return sum(count for other, count in self._having.items() if other >= limit)

    def _forget_limit(self, name: str) -> None:
        limit = self._limits.pop(name, None)
        if limit is not None:
            self._having[limit] -= 1
            if not self._having[limit]:
                del self._having[limit]
