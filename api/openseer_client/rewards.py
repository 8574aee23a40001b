"""A pool of processes that compute rewards while other groups are still sampled."""

import faulthandler
import math
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from openseer_client.errors import RewardError
from openseer_client.groups import FinishedGroup
from openseer_core.wire.results import ResultItem

Reward = Callable[[ResultItem], float]
"""Maps a response to its reward, a finite number."""

LONGEST_SECONDS = 86400.0
"""Largest allowed time limit of one call, in seconds."""
KILL_SECONDS = 2.0
"""Time from the time limit to the end of the process, in seconds, if the exception does not end the call."""


class RewardPool:
    """A pool of processes that compute rewards; a `with` block, or `close`, ends the processes.

    `reward` is called with one response at a time. Each process imports it by its name, so it must be at the top level
    of a module whose main part is under `if __name__ == "__main__"`. `seconds`: time limit of one call, including the
    import. RewardError is raised for an exception, a call beyond the limit, a process that dies, and a reward that is
    not a finite number: 0 would be a reward, and a response without a reward is no sample. A call beyond the limit
    fails also if `reward` catches every exception. If `reward` replaces the alarm (SIGALRM), its process is ended
    instead.
    """

    def __init__(self, reward: Reward, processes: int = 4, *, seconds: float = 60.0) -> None:
        if processes < 1 or not 0 < seconds <= LONGEST_SECONDS:
            allowed = f"at least 1, more than 0 and at most {LONGEST_SECONDS:.0f}"
            raise ValueError(f"processes, seconds: found {processes}, {seconds}; needed: {allowed}")
        self._reward, self._seconds = _importable(reward), seconds
        # Spawned, not forked, because a trainer has threads and uses a GPU.
        self._pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _follow_parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; calls that have not begun are cancelled."""
        self._pool.shutdown(cancel_futures=True)

    def rewards(self, group: FinishedGroup) -> list[float]:
        """Computes the rewards of a group's results in parallel; returns them in the order of the results.
        Raises RewardError."""
        return self._taken(group, self._begun(group))

    def over(self, groups: Iterable[FinishedGroup], *, ahead: int = 64) -> Iterator[tuple[FinishedGroup, list[float]]]:
        """Yields each group with its rewards, in the order of `groups`; a group that is not whole has none.

        Up to `ahead` further groups are read from `groups` before the rewards of the first are complete. So read the
        groups without `acknowledge`, and acknowledge the batch once the rewards are used. Raises RewardError.
        """
        begun: deque[tuple[FinishedGroup, list[Future[_Said]]]] = deque()
        for group in groups:
            begun.append((group, self._begun(group) if group.whole else []))
            while len(begun) > ahead or (begun and all(future.done() for future in begun[0][1])):
                yield begun[0][0], self._taken(*begun.popleft())
        while begun:
            yield begun[0][0], self._taken(*begun.popleft())

    def _begun(self, group: FinishedGroup) -> "list[Future[_Said]]":
        try:
            return [self._pool.submit(_called, self._reward, item, self._seconds) for item in group.results]
        except BrokenProcessPool as error:
            raise RewardError(group.name, None, _died(error)) from error

    def _taken(self, group: FinishedGroup, futures: "list[Future[_Said]]") -> list[float]:
        found: list[float] = []
        for item, future in zip(group.results, futures, strict=False):
            try:
                reward, problem = future.result()
            except BrokenProcessPool as error:
                raise RewardError(group.name, None, _died(error)) from error
            if problem:
                raise RewardError(group.name, item.index, problem)
            found.append(reward)
        return found


def _importable(reward: Reward) -> bytes:
    """Returns the pickled name of the function. Raises ValueError if other processes cannot import it."""
    is_typed = reward.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    try:
        named, why = pickle.dumps(reward), ""
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        named, why = b"", f": {error}"
    if is_typed or not named:
        raise ValueError(
            f"reward: found {reward!r}, needed: a function at the top level of a module in a file, which other "
            f"processes can import{why}"
        )
    return named


def _died(error: BrokenProcessPool) -> str:
    return f"a process that computed rewards died, of this response or another ({error}); see its output above"


# ---- in the processes

_Said = tuple[float, str]
"""A reward and "", or 0 and the reason why there is none.
The reason is text, because an exception may not be picklable."""
_overdue = threading.Event()
"""Set when the alarm of the present call was raised."""


def _follow_parent() -> None:
    # Only the trainer handles Ctrl-C, and then ends the pool. If the trainer is killed, each process ends itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _end_call)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _end_call(_number: int, _frame: FrameType | None) -> NoReturn:
    _overdue.set()
    raise TimeoutError


def _called(named: bytes, item: ResultItem, seconds: float) -> _Said:
    # The alarm ends Python code and blocking calls; the watchdog ends code that never returns to the interpreter.
    faulthandler.dump_traceback_later(seconds + KILL_SECONDS, exit=True)
    _overdue.clear()
    begun = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            reward: Any = pickle.loads(named)(item)
            problem = ""
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:  # noqa: BLE001 - also sys.exit() in code that a model wrote
        reward, problem = None, f"{type(error).__name__}: {_shown(error, str)}"
    faulthandler.cancel_dump_traceback_later()
    if _overdue.is_set() or time.monotonic() - begun > seconds:
        return 0.0, f"no reward within {seconds:g} s"
    return (0.0, problem) if problem else _finite(reward)


def _finite(reward: Any) -> _Said:
    try:
        value = math.nan if isinstance(reward, str | bytes) else float(reward)
    except Exception:  # noqa: BLE001 - raised by a reward's own code
        value = math.nan
    return (value, "") if math.isfinite(value) else (0.0, f"found {_shown(reward, repr):.100}, needed: a finite number")


def _shown(value: object, show: Callable[[object], str]) -> str:
    """Returns the text of a value of foreign code, for which `show` may fail."""
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001 - raised by a reward's own code
        return f"{type(value).__name__} ({type(error).__name__} when it was shown)"
