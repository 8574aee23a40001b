"""An asyncio event loop on virtual time: when no task is ready, time jumps to the next timer.

Hours of a simulated fleet take seconds. The loop is for code that waits for timers and its own tasks: sockets are
served, but time does not wait for them. Work for a thread runs at once, in zero time.
"""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

_Result = TypeVar("_Result")
# Real time to wait for a thread or a socket when no timer is left, in seconds; then the loop raises StuckError.
_STUCK_SECONDS = 5.0


class StuckError(RuntimeError):
    """Raised if every task waits and no timer is left to wake one."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances its clock by the timeout instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(_STUCK_SECONDS)
            if not ready:
                raise StuckError("nothing is ready and no timer is set: every task waits for another")
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` begins at 0 and advances only when all tasks wait."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., _Result], *args: Any
    ) -> asyncio.Future[_Result]:
        """Calls `func` in this thread, since virtual time would not wait for another one."""
        del executor
        done: asyncio.Future[_Result] = self.create_future()
        done.set_result(func(*args))
        return done

    @property
    def _clock_resolution(self) -> float:
        """The distance to the next float, in seconds. asyncio calls the timers that are due before `time` plus this
        number. A smaller one would not change the sum, and a timer due at `time` would never be called."""
        return math.ulp(self._clock.now)

    @_clock_resolution.setter
    def _clock_resolution(self, _real: float) -> None:
        """Ignores the resolution of the real clock, which asyncio sets."""


def run_virtual(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs `main` to its end on virtual time, like asyncio.run."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
