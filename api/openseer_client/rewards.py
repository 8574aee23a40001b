"""Rewards computed in processes of their own, while other groups are still sampled."""

import faulthandler
import math
import multiprocessing
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from openseer_client.errors import RewardError
from openseer_client.groups import FinishedGroup
from openseer_core.wire.batches import ResultItem

Reward = Callable[[ResultItem], float]
"""What a response is worth, a finite number."""

KILL_SECONDS = 2.0
"""After its time a reward function gets an exception; if that does not end it so much later, its process ends."""


class RewardPool:
    """Processes that compute rewards; a `with` block, or `close`, ends them.

    `reward` is called with one response at a time. It is imported in each process by its name, so it stands at the top
    level of a module; the module's main part stands under `if __name__ == "__main__"`. `seconds`: longest time of one
    call. An exception, a longer call, a process that dies and a reward that is no finite number are a RewardError: a
    response without a reward is no sample, and 0 would be a reward.
    """

    def __init__(self, reward: Reward, processes: int = 4, *, seconds: float = 60.0) -> None:
        if processes < 1 or seconds <= 0:
            raise ValueError(f"processes, seconds: found {processes}, {seconds}; needed: at least 1, more than 0")
        _require_importable(reward)
        self._reward, self._seconds = reward, seconds
        # Not forked: a trainer has threads, and a GPU.
        self._pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _leave_to_parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; what has not begun is not computed."""
        self._pool.shutdown(cancel_futures=True)

    def rewards(self, group: FinishedGroup) -> list[float]:
        """One reward for each result of a group, in their order; computed side by side. Raises RewardError."""
        return self._taken(group, self._begun(group))

    def over(self, groups: Iterable[FinishedGroup], *, ahead: int = 64) -> Iterator[tuple[FinishedGroup, list[float]]]:
        """Each group with its rewards, in the order of `groups`; groups that are not whole have none.

        Up to `ahead` groups are taken from `groups` before the first has its rewards: read them without `acknowledge`,
        and acknowledge the batch once the rewards are used. Raises RewardError.
        """
        begun: deque[tuple[FinishedGroup, list[Future[float]]]] = deque()
        for group in groups:
            begun.append((group, self._begun(group) if group.whole else []))
            while len(begun) > ahead or (begun and all(future.done() for future in begun[0][1])):
                yield begun[0][0], self._taken(*begun.popleft())
        while begun:
            yield begun[0][0], self._taken(*begun.popleft())

    def _begun(self, group: FinishedGroup) -> list[Future[float]]:
        try:
            return [self._pool.submit(_called, self._reward, item, self._seconds) for item in group.results]
        except BrokenProcessPool as error:
            raise RewardError(group.name, None, _died(error)) from error

    def _taken(self, group: FinishedGroup, futures: list[Future[float]]) -> list[float]:
        found: list[float] = []
        for item, future in zip(group.results, futures, strict=False):
            try:
                reward = future.result()
            except BrokenProcessPool as error:
                raise RewardError(group.name, None, _died(error)) from error
            except TimeoutError as error:
                why = f"no reward within {self._seconds:g} s"
                raise RewardError(group.name, item.index, f"{why}: {error}" if str(error) else why) from error
            except Exception as error:
                raise RewardError(group.name, item.index, f"{type(error).__name__}: {error}") from error
            found.append(_finite(reward, group.name, item.index))
        return found


def _require_importable(reward: Reward) -> None:
    """Raises ValueError for what a process cannot import by its name."""
    is_typed = reward.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    try:
        pickle.dumps(reward)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        is_typed, why = True, f": {error}"
    else:
        why = ""
    if is_typed:
        raise ValueError(
            f"reward: found {reward!r}, needed: a function at the top level of a module in a file, which other "
            f"processes can import{why}"
        )


def _finite(reward: Any, group: str, index: int) -> float:
    try:
        value = float(reward)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise RewardError(group, index, f"found {reward!r}, needed: a finite number")
    return value


def _died(error: BrokenProcessPool) -> str:
    return f"a process that computed rewards died, of this response or another ({error}); its last words are above"


# ---- in the processes


def _leave_to_parent() -> None:
    # Ctrl-C is for the trainer, which then ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _overdue)


def _overdue(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeoutError


def _called(reward: Reward, item: ResultItem, seconds: float) -> float:
    # The alarm ends Python code and waits; the watchdog ends what never comes back to the interpreter.
    faulthandler.dump_traceback_later(seconds + KILL_SECONDS, exit=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return reward(item)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
