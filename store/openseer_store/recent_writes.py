"""A client's recent writes, which it repeats to a store that restarts from an older log.

Several clients repeat their writes in any order. So the arguments of a repeated verb state when it applies: a seal
contains its number of groups, a verdict its number, and a turn is marked as a repeat, which applies only to a response
of an earlier epoch.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

KEPT_SECONDS = 60.0
"""Time for which a write is kept, in seconds. A Redis that syncs its log every second loses, with its node, the writes
since the last complete sync: about one second, and up to three on a slow disk, because Redis delays writes to the log
for up to two seconds while a sync runs. A failover to a replica loses the replication lag."""
KEPT_BYTES = 64 * 2**20
"""Limit of the kept writes, in bytes; beyond it the oldest writes are dropped."""

Check = Callable[[], None]
"""A function that is called before a command is sent to the server; if it raises an exception, nothing is sent."""
StoreCall = Callable[[Check], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class RecentWrite:
    """A write that the store has answered, and the call that repeats it. `at`: time of the write, by the client's
    clock."""

    verb: str
    at: float
    size: int
    call: StoreCall

    def refusal(self, answer: Any) -> str:
        """The reason why the store refused the repeat; "" if it accepted the repeat or already had the write."""
        word = answer[2] if self.verb == "submit" else answer[0] if self.verb == "go_on" else b""
        return "" if word in (b"", b"ok") else word.decode()


class RecentWrites:
    """The writes of the last KEPT_SECONDS, in order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writes: deque[RecentWrite] = deque()
        self._bytes = 0

    def note(self, verb: str, size: int, call: StoreCall) -> None:
        """Keeps a write of `size` bytes."""
        self._writes.append(RecentWrite(verb, self._clock(), size, call))
        self._bytes += size
        while self._bytes > KEPT_BYTES:
            self._drop_first()

    def drop_old(self) -> None:
        """Drops writes older than KEPT_SECONDS. Call it only while the server answers: after an outage older writes may
        have to be repeated."""
        oldest = self._clock() - KEPT_SECONDS
        while self._writes and self._writes[0].at < oldest:
            self._drop_first()

    def _drop_first(self) -> None:
        self._bytes -= self._writes.popleft().size

    def writes(self) -> list[RecentWrite]:
        """The kept writes, oldest first."""
        return list(self._writes)
