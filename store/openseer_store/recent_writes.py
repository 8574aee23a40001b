"""A client's recent writes, to repeat them to a store that restarts from an older log.

Several clients of one store repeat theirs in any order, so the arguments of a repeated verb state its precondition: for
a seal the number of groups, for a verdict its number, for a turn that its response is of an earlier epoch.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

KEPT_SECONDS = 60.0
"""Time for which a write is kept, in seconds: a store that syncs its log every second loses up to two, a replica its
lag."""
KEPT_BYTES = 64 * 2**20
"""Limit of kept bytes; beyond it the oldest writes are dropped."""

Check = Callable[[], None]
"""Called before anything is sent to the server; it raises an exception to prevent that."""
StoreCall = Callable[[Check], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class RecentWrite:
    """An answered call, which may be repeated."""

    verb: str
    at: float
    size: int
    call: StoreCall

    def refusal(self, answer: Any) -> str:
        """The reason why the store refused the repeat, "" if it accepted it or had the write."""
        word = answer[2] if self.verb == "submit" else answer[0] if self.verb == "go_on" else b""
        return "" if word in (b"", b"ok") else word.decode()


class RecentWrites:
    """Answered calls, in order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writes: deque[RecentWrite] = deque()
        self._bytes = 0

    def note(self, verb: str, size: int, call: StoreCall) -> None:
        """Keeps a call of `size` bytes."""
        self._writes.append(RecentWrite(verb, self._clock(), size, call))
        self._bytes += size
        while self._bytes > KEPT_BYTES:
            self._drop_first()

    def drop_old(self) -> None:
        """Drops writes older than KEPT_SECONDS. Only while the server answers: an outage may lose older ones."""
        oldest = self._clock() - KEPT_SECONDS
        while self._writes and self._writes[0].at < oldest:
            self._drop_first()

    def _drop_first(self) -> None:
        self._bytes -= self._writes.popleft().size

    def writes(self) -> list[RecentWrite]:
        """The kept writes, oldest first."""
        return list(self._writes)
