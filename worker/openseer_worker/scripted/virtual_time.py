"""An asyncio event loop on virtual time: when nothing is ready, time jumps to the next timer.

Hours of a simulated fleet pass in seconds. For code that waits on timers and on itself alone: sockets are served, but
time does not wait for them. What code gives to a thread is done at once, in no time.
"""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

_Result = TypeVar("_Result")
# Real seconds to wait for a thread or a socket when no timer is left, before the loop counts as stuck.
_STUCK_SECONDS = 5.0


class StuckError(RuntimeError):
    """Every task waits for something that no timer will bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting, moves the clock on by as long."""

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
    """Its `time` begins at 0 and moves only when everything else waits."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., _Result], *args: Any
    ) -> asyncio.Future[_Result]:
        """Calls it here: time would pass while nobody knows how far a thread is."""
        del executor
        done: asyncio.Future[_Result] = self.create_future()
        done.set_result(func(*args))
        return done

    @property
    def _clock_resolution(self) -> float:
        """How far a timer may be ahead and be due: the next number and no more, or a timer so near would ring again
        and again without time moving on."""
        return math.ulp(self._clock.now)

    @_clock_resolution.setter
    def _clock_resolution(self, _real: float) -> None:
        """asyncio would set that of the real clock."""


def run_virtual(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs `main` to its end on virtual time, like asyncio.run."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
