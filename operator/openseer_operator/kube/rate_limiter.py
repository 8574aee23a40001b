"""Limits the rate of writes over all jobs: computes the seconds that a job has to wait for its write."""

import heapq
from collections.abc import Collection

from openseer_operator.objects.reading import JobKey

BURST_SECONDS = 1.0
"""Time for which an unused slot stays valid, in seconds; it limits bursts."""


class RateLimiter:
    """Gives out at most `rate` slots (permissions for one write) per second over all jobs, in the order of first calls.

    A slot is reserved for one name (an object of a job) until it is used or given back. The next caller gets the
    earliest slot that was given back. All times are in seconds.
    """

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._next = 0.0
        self._slots: dict[JobKey, dict[str, float]] = {}
        self._free: list[float] = []  # a heap of slots that were given back

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def wait(self, job: JobKey, name: str, now: float) -> float:
        """0 if `name` may write now, which uses its slot; otherwise the seconds after which to call again."""
        slots = self._slots.setdefault(job, {})
        slot = slots.pop(name) if name in slots else self._new_slot(now)
        if slot > now:
            slots[name] = slot
        elif not slots:
            del self._slots[job]
        return max(0.0, slot - now)

    def keep(self, job: JobKey, names: Collection[str]) -> None:
        """Gives back the job's slots of all names except `names`."""
        slots = self._slots.get(job, {})
        for name in [name for name in slots if name not in names]:
            heapq.heappush(self._free, slots.pop(name))
        if not slots:
            self._slots.pop(job, None)

    def _new_slot(self, now: float) -> float:
        oldest = now - BURST_SECONDS
        while self._free:
            slot = heapq.heappop(self._free)
            if slot >= oldest:
                return slot
        slot = max(self._next, oldest)
        self._next = slot + self._interval
        return slot
