"""What a client wrote last, so that a store that restarts from an older log is told it again."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

KEPT_SECONDS = 60.0
"""How long a write is kept: a store that syncs its log every second forgets two, a replica as much as it lags."""
KEPT_BYTES = 64 * 2**20
"""Most bytes that are kept; of more, the oldest writes go."""

StoreCall = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Write:
    at: float
    size: int
    call: StoreCall


class RecentWrites:
    """Calls that a server has answered, in their order, each of which may be made again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writes: deque[_Write] = deque()
        self._bytes = 0

    def note(self, size: int, call: StoreCall) -> None:
        """Keeps a call of so many bytes.

        Old ones go only now: while the server is away nothing is written, and what was written before may be lost.
        """
        now = self._clock()
        self._writes.append(_Write(now, size, call))
        self._bytes += size
        while self._writes and (self._bytes > KEPT_BYTES or self._writes[0].at < now - KEPT_SECONDS):
            self._bytes -= self._writes.popleft().size

    def calls(self) -> list[StoreCall]:
        """The oldest first."""
        return [write.call for write in self._writes]
