"""A circuit breaker: after repeated failures it pauses the use of a pool, then lets one use test the pool."""

import threading
import time
from collections.abc import Callable

FAILURES = 3
"""Consecutive failures that open the breaker."""
OUT_SECONDS = 20.0
"""Time for which the breaker stays open, in seconds; then the next use decides whether it closes."""


class Breaker:
    """Decides whether a pool may be used. Its methods are thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._out_until = 0.0
        self.reason = ""
        """The latest failure, for people."""

    @property
    def is_out(self) -> bool:
        """Whether the breaker is open. After OUT_SECONDS one call returns False, so that its caller tests the pool."""
        with self._lock:
            if self._failures < FAILURES:
                return False
            now = self._clock()
            if now < self._out_until:
                return True
            self._out_until = now + OUT_SECONDS
            return False

    def succeeded(self) -> None:
        """Notes a successful use of the pool."""
        with self._lock:
            self._failures = 0

    def failed(self, reason: str) -> None:
        """Notes a use of the pool that failed or timed out."""
        with self._lock:
            self.reason = reason
            self._failures += 1
            if self._failures >= FAILURES:
                self._out_until = self._clock() + OUT_SECONDS
