"""How much of the gateway's memory rows of routed experts may take: pods and volumes of tenants say how much comes."""

import asyncio
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress

from openseer_api.job.rows import RowsUnavailable
from openseer_store.routed.assembly import RoutedExperts

ALL_BYTES = 2**30
"""Of all jobs of a process: answers that are read, and rows that somebody has not sent yet."""
JOB_BYTES = ALL_BYTES // 2
"""Of one job: its pod alone keeps no other job from its rows."""
WAIT_SECONDS = 10.0
"""Longest wait for memory that others have."""
PAUSE_SECONDS = 0.05


class RowsMemory:
    """Bytes that are in memory now, `most` at most; they count for `within`, too."""

    def __init__(self, most: int, within: "RowsMemory | None" = None) -> None:
        self.bytes = 0
        self._most = most
        self._within = within

    async def take(self, count: int) -> None:
        """So many more, once there is room for them. Raises RowsUnavailable where there is none in WAIT_SECONDS."""
        until = time.monotonic() + WAIT_SECONDS
        while not self._has_room(count):
            if time.monotonic() > until or count > self._most:
                raise RowsUnavailable(
                    f"this gateway has no {count:,} bytes left for the job's routed experts: others are being sent. "
                    "Ask again, and for fewer results at once"
                )
            await asyncio.sleep(PAUSE_SECONDS)
        self._add(count)

    def give(self, count: int) -> None:
        """So many less."""
        self._add(-count)

    def keep(self, found: RoutedExperts) -> None:
        """Those of `found` are in memory until nobody has it any more: its last reader may be a thread."""
        loop, count = asyncio.get_running_loop(), len(found.rows)
        self._add(count)

        def dropped() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(self.give, count)

        weakref.finalize(found, dropped).atexit = False

    @contextmanager
    def part(self) -> Generator["RowsMemory"]:
        """For one reading: what it has taken is given back at the end."""
        part = RowsMemory(self._most, self)
        try:
            yield part
        finally:
            part.give(part.bytes)

    def _has_room(self, count: int) -> bool:
        return self.bytes + count <= self._most and (self._within is None or self._within._has_room(count))

    def _add(self, count: int) -> None:
        self.bytes += count
        if self._within is not None:
            self._within._add(count)
