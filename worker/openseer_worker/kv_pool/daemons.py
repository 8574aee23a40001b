"""Threads for what may hang in a pool. They are daemons: a process ends although one of them waits for ever.

The threads of concurrent.futures and of asyncio's executor would be waited for.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

MOST_WAITING = 1024
"""What waits for a thread at most; threads that hang would let it grow for ever."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class DaemonThreads:
    """`count` threads that do what is submitted, in order. They start with the first of it. `most`: that may wait."""

    def __init__(self, count: int, name: str, most: int = MOST_WAITING) -> None:
        self._count = count
        self._name = name
        self._most = most
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        """Has a thread call the function; what it returns or raises is in the future, TimeoutError where too much
        waits already."""
        future: Future[_Result] = Future()
        if self._work.qsize() >= self._most:
            future.set_exception(TimeoutError(f"{self._most} others wait for {self._name}"))
            return future

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
                future.set_exception(error)

        self._work.put(call)
        if len(self._threads) < self._count:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Ends the threads once they have done what was submitted; waits for none."""
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        while (call := self._work.get()) is not None:
            call()
