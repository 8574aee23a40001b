"""What a client wrote last, so that a store that restarts from an older log is told it again.

Several clients of one store tell theirs in any order, so a verb that is told again says in its arguments what it builds
on: a seal how many groups there were, a verdict its number, a turn that its response is of an earlier epoch.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

KEPT_SECONDS = 60.0
"""How long a write is kept: a store that syncs its log every second forgets two, a replica as much as it lags."""
KEPT_BYTES = 64 * 2**20
"""Most bytes that are kept; of more, the oldest writes go."""

Check = Callable[[], None]
"""Called before anything is sent to the server; it raises where nothing is to be."""
StoreCall = Callable[[Check], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class RecentWrite:
    """A call that a server has answered; it may be made again."""

    verb: str
    at: float
    size: int
    call: StoreCall

    def refusal(self, answer: Any) -> str:
        """Why the store did not take what it was told again, "" where it did or had it."""
        word = answer[2] if self.verb == "submit" else answer[0] if self.verb == "go_on" else b""
        return "" if word in (b"", b"ok") else word.decode()


class RecentWrites:
    """Calls that a server has answered, in their order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writes: deque[RecentWrite] = deque()
        self._bytes = 0

    def note(self, verb: str, size: int, call: StoreCall) -> None:
        """Keeps a call of so many bytes."""
        self._writes.append(RecentWrite(verb, self._clock(), size, call))
        self._bytes += size
        while self._bytes > KEPT_BYTES:
            self._drop_first()

    def drop_old(self) -> None:
        """To be called while the server answers: what was written before it went away may be lost, at whatever age."""
        oldest = self._clock() - KEPT_SECONDS
        while self._writes and self._writes[0].at < oldest:
            self._drop_first()

    def _drop_first(self) -> None:
        self._bytes -= self._writes.popleft().size

    def writes(self) -> list[RecentWrite]:
        """The oldest first."""
        return list(self._writes)
