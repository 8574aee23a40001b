"""Limits the memory of the gateway for rows of routed experts, whose sizes tenants' pods and volumes determine."""

import asyncio
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress

from openseer_api.job.rows import RowsUnavailable
from openseer_store.routed.assembly import RoutedExperts

ALL_BYTES = 2**30
"""Limit for all jobs of a process, in bytes: responses being read, and rows not yet sent to clients."""
JOB_BYTES = ALL_BYTES // 2
"""Limit for one job, in bytes: half, so that one job cannot use the memory of all others."""
WAIT_SECONDS = 10.0
"""Longest wait for memory that other calls use, in seconds; then HTTP 503."""
PAUSE_SECONDS = 0.05
"""Interval between two checks for free memory, in seconds."""


class RowsMemory:
    """A counter of bytes in use, with the limit `most`; its bytes also count in `within`."""

    def __init__(self, most: int, within: "RowsMemory | None" = None) -> None:
        self.bytes = 0
        self._most = most
        self._within = within

    async def take(self, count: int) -> None:
        """Adds `count` bytes once they are free. Raises RowsUnavailable if they are not within WAIT_SECONDS, or if
        `count` exceeds the limit."""
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
        """Subtracts `count` bytes."""
        self._add(-count)

    def keep(self, found: RoutedExperts) -> None:
        """Counts the bytes of `found` until it is garbage-collected, which may happen in any thread."""
        loop, count = asyncio.get_running_loop(), len(found.rows)
        self._add(count)

        def dropped() -> None:
            with suppress(RuntimeError):  # the loop is closed, and the count not needed any more
                loop.call_soon_threadsafe(self.give, count)

        weakref.finalize(found, dropped).atexit = False

    @contextmanager
    def part(self) -> Generator["RowsMemory"]:
        """Yields a counter for one read, within this one; its bytes are subtracted at the end."""
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
