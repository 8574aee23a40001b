"""Threads for calls that may hang in a pool. They are daemons: the process can end while one of them hangs.

Threads of concurrent.futures or of asyncio's executor would not do: Python joins them at its end.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

MOST_WAITING = 1024
"""Limit of queued calls: without it the queue would grow without bound while the threads hang."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class DaemonThreads:
    """Up to `count` threads, started as needed, that run submitted calls in order. `most`: limit of queued calls."""

    def __init__(self, count: int, name: str, most: int = MOST_WAITING) -> None:
        self._count = count
        self._name = name
        self._most = most
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        """Queues a call of the function for a thread. The future has its result or error; TimeoutError if the queue is
        full."""
        future: Future[_Result] = Future()
        if self._work.qsize() >= self._most:
            future.set_exception(TimeoutError(f"{self._most} other calls wait for {self._name}"))
            return future

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the future raises it in its reader
                future.set_exception(error)

        self._work.put(call)
        if len(self._threads) < self._count:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Ends the threads after the queued calls, without waiting for them."""
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        while (call := self._work.get()) is not None:
            call()
