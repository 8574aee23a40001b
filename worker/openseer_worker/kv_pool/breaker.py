"""A circuit breaker: a pool that fails again and again is left alone for a while, then tried once."""

import threading
import time
from collections.abc import Callable

FAILURES = 3
"""So many failures without a success between them take the pool out."""
OUT_SECONDS = 20.0
"""How long it stays out; then one use decides whether it comes back."""


class Breaker:
    """Says whether a pool may be used. All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._out_until = 0.0
        self.reason = ""
        """The latest failure, for people."""

    @property
    def is_out(self) -> bool:
        """Whether the pool is left alone now. After its time out, one caller is told no, and tries."""
        with self._lock:
            if self._failures < FAILURES:
                return False
            now = self._clock()
            if now < self._out_until:
                return True
            self._out_until = now + OUT_SECONDS
            return False

    def succeeded(self) -> None:
        """A use of the pool went well."""
        with self._lock:
            self._failures = 0

    def failed(self, reason: str) -> None:
        """A use of the pool went wrong, or took too long."""
        with self._lock:
            self.reason = reason
            self._failures += 1
            if self._failures >= FAILURES:
                self._out_until = self._clock() + OUT_SECONDS
