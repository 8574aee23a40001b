"""The start of a worker: builds the engine and connects to the store concurrently.

SIGTERM, SIGINT or a drain request ends the start immediately.

Engines are imported and built in threads, so that signals, probes and heartbeats are served during the build.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

from openseer_core.errors import StoreError
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_store.connect import open_store
from openseer_store.port import Store
from openseer_store.redis_link import RETRY_SECONDS
from openseer_worker.engine import Engine
from openseer_worker.engine_factory import build_engine, warm_up
from openseer_worker.gang import GangLeader
from openseer_worker.kv_pool.backends import check_pool
from openseer_worker.kv_pool.mooncake.client import is_loaded as mooncake_is_loaded
from openseer_worker.loop import HEARTBEAT_SECONDS
from openseer_worker.routing.writer import check_rows_folder
from openseer_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

LEAVE_SECONDS = 2.0
"""Timeout for deregistering a worker that ends before it is ready, in seconds."""
THREAD = "openseer-build"

_Result = TypeVar("_Result")


def stop_on_signals() -> asyncio.Event:
    """Returns an event that SIGTERM and SIGINT set, for the running loop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def in_thread(work: Callable[[], _Result]) -> _Result:
    """Runs `work` in a daemon thread: the build of an engine cannot be interrupted, only abandoned."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not future.done():
            set_outcome(outcome)

    def run() -> None:
        set_outcome: Callable[[Any], None] = future.set_result
        outcome: object
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - the awaiting code raises it again
            set_outcome, outcome = future.set_exception, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, set_outcome, outcome)

    threading.Thread(target=run, name=THREAD, daemon=True).start()
    return await future


def end_process(code: int) -> NoReturn:
    """Ends the process; without cleanup if a thread still builds or watches an engine, or if Mooncake's client is
    loaded: its threads may hang."""
    if mooncake_is_loaded() or any(thread.name == THREAD for thread in threading.enumerate()):
        end_at_once(code)
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """Ends the process without cleanup. Its child processes detect the death of their parent and exit."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


async def all_or_stop(stop: asyncio.Event, *tasks: asyncio.Task[Any]) -> bool:
    """Waits for all tasks. Returns True when they are done, False if `stop` is set before.

    Raises the first task's error. Cancels unfinished tasks.
    """
    stopping = asyncio.create_task(stop.wait())
    pending = set(tasks)
    try:
        while pending and not stop.is_set():
            done, _ = await asyncio.wait({stopping, *pending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            pending -= done
        return not pending
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)


class Start:
    """Starts a worker: a single process, or the leader of a gang."""

    def __init__(self, settings: WorkerSettings, stop: asyncio.Event, gang: GangLeader | None) -> None:
        self._settings = settings
        self._stop = stop
        self._gang = gang
        self._store: Store | None = None

    async def run(self) -> tuple[Store, Engine] | None:
        """Returns store and engine; None if `stop` is set, or a drain is requested, before both are ready.

        Raises InputError, StoreError or EngineError. Closes the store unless it returns it.
        """
        building = asyncio.create_task(self._build())
        reaching = asyncio.create_task(self._reach_store(building))
        try:
            if await all_or_stop(self._stop, building, reaching):
                return reaching.result(), building.result()
        except BaseException:
            await self._leave()
            raise
        await self._leave()
        return None

    async def _build(self) -> Engine:
        settings, place = self._settings, None
        if settings.pool is not None:
            await in_thread(partial(check_pool, settings.pool))
        if settings.job.spec.routing.capture is not None:
            await in_thread(partial(check_rows_folder, settings.routes))
        if self._gang is not None:
            _, place = await asyncio.gather(in_thread(lambda: warm_up(settings.job)), self._gang.assemble())
        return await in_thread(lambda: build_engine(settings, place))

    async def _reach_store(self, building: asyncio.Task[Engine]) -> Store:
        """Connects to the store and sends heartbeats of a starting worker until the engine is built."""
        job = self._settings.job
        log.info("waiting for the store, up to %.0f s", RETRY_SECONDS)
        store = self._store = await open_store(self._settings.store_url, job.name, job.namespace)
        while not building.done():
            reply = await store.heartbeat(self._settings.worker, Heartbeat(WorkerState.STARTING, self._settings.place))
            if reply.drain:
                log.info("asked to drain")
                self._stop.set()
            await asyncio.wait({building}, timeout=HEARTBEAT_SECONDS)
        return store

    async def _leave(self) -> None:
        if self._store is not None:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._store.deregister(self._settings.worker)
            await self._store.close()
