"""The shared part of `openseer run` and `openseer serve`: store and workers of a local job, and their clean stop."""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import RolloutJob
from openseer_driver.run_folder import RunFolder
from openseer_local.fleet import LocalFleet
from openseer_local.terminal.display import Display
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.routed.places import job_folder
from openseer_worker.kv_pool.mooncake.servers import PoolServers, free_ports

REACH_SECONDS = 5.0
"""Timeout of the first call to a Redis of the user's own, in seconds; then the command fails: its URL may be wrong."""

TELL_AGAIN_SECONDS = 10.0
"""Interval at which a repeated message of the store is shown again, in seconds."""

_HERE = "127.0.0.1"

Tasks = Mapping[str, asyncio.Task[Any]]


class LocalSession:
    """One session of a job: a store, a fleet, and tasks that run until the first of them ends or `stop` is called."""

    def __init__(self, job: RolloutJob, folder: RunFolder, display: Display) -> None:
        self._job = job
        self._folder = folder
        self._display = display
        self._stop = asyncio.Event()
        self._server: EmbeddedRedis | None = None

    @property
    def grace_seconds(self) -> float:
        """Time limit of the workers' drain, in seconds."""
        return float(self._job.spec.workers.grace_period_seconds)

    @property
    def routed(self) -> Path | None:
        """The folder for rows of routed experts; None without capture."""
        capture = self._job.spec.routing.capture
        if capture is None:
            return None
        return job_folder(capture.path, str(self._folder.path.resolve())) if capture.path else self._folder.rows_folder

    def stop(self) -> None:
        """Requests a clean stop: the workers drain, and the run can be resumed."""
        self._stop.set()

    @asynccontextmanager
    async def store_url(self) -> AsyncGenerator[str]:
        """Yields the URL of the store: of the user's own Redis after it has answered, else of a Redis that runs in the
        job's folder until the end of the block. Raises StoreError."""
        job, spec = self._job, self._job.spec.store
        with waits_reported(self._display.message):
            if spec.url is not None:
                await (await open_store(spec.url, job.name, job.namespace, retry_seconds=REACH_SECONDS)).close()
                yield spec.url
                return
            self._display.phase("starting the store")
            server = EmbeddedRedis(
                self._folder.store_folder,
                spec.fsync,
                on_loading=lambda: self._display.phase("the store loads its data"),
            )
            async with server as url:
                self._server = server
                yield url

    @asynccontextmanager
    async def _kv_pool(self) -> AsyncGenerator[str]:
        """Yields HOST:PORT of the master of Mooncake's store, "" for a job without one. Raises InputError."""
        pool = self._job.spec.kv_pool
        if pool.backend != "mooncake":
            yield ""
            return
        self._display.phase("starting the KV pool")
        bytes_ = pool.max_gigabytes * 2**30
        servers = PoolServers(_HERE, free_ports(_HERE), bytes_, self._folder.logs_folder, self._display.message)
        async with servers as master:
            yield master

    async def start_fleet(self, stack: AsyncExitStack, url: str, replicas: int) -> LocalFleet:
        """Starts `replicas` workers with the store at `url`; closing `stack` stops them."""
        folder, failure_policy = self._folder, self._job.spec.failure_policy
        folder.create(folder.logs_folder)
        kv_pool = await stack.enter_async_context(self._kv_pool())
        fleet = LocalFleet(
            folder.job_file,
            url,
            folder.logs_folder,
            replicas,
            failure_policy,
            self._display.message,
            kv_pool,
            self.routed,
        )
        stack.push_async_callback(fleet.stop, self.grace_seconds)
        await fleet.start()
        return fleet

    async def run(
        self,
        fleet: LocalFleet,
        work: Mapping[str, Coroutine[Any, Any, Any]],
        *,
        end_phase: Callable[[Tasks], str],
        close: Callable[[Tasks], Awaitable[None]] | None = None,
    ) -> Tasks:
        """Runs the tasks `work` until the first one ends or `stop` is called, then stops the workers and all tasks.

        `end_phase`: returns the display's text during the stop. `close`: called before the workers are stopped.
        Returns all tasks; the unfinished ones are cancelled. Raises the error of a task that failed.
        """
        coroutines = {**work, "stop": self._stop.wait()}
        if self._server is not None:
            coroutines["store"] = self._server.watch()
        tasks = {name: asyncio.create_task(coroutine, name=name) for name, coroutine in coroutines.items()}
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for task in tasks.values():
                if task.done():
                    task.result()
            self._display.phase(end_phase(tasks))
        except OpenseerError as error:
            self._display.message(str(error).split("\n")[0])
            self._display.phase("ending: workers give back their requests")
            raise
        finally:
            if close is not None:
                await close(tasks)
            # Without the store, workers cannot give back their requests, so they are killed at once.
            await fleet.stop(0.0 if "store" in tasks and tasks["store"].done() else self.grace_seconds)
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return tasks


class _Reporter(logging.Handler):
    """Passes messages to `report`; a repeated message only every TELL_AGAIN_SECONDS."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._report = report
        self._last: tuple[str, float] = ("", 0.0)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        last, told_at = self._last
        # Concurrent calls that wait for the store log the same message.
        if message != last or record.created > told_at + TELL_AGAIN_SECONDS:
            self._last = (message, record.created)
            self._report(message)


@contextmanager
def waits_reported(report: Callable[[str], None]) -> Generator[None]:
    """Passes log messages to `report` within the block: of the store (waits, memory nearly full), of the sampler, and
    of the span export (lost spans)."""
    names = ("openseer_store", "openseer_driver.sampler", "openseer_process.span_export")
    handler, loggers = _Reporter(report), [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Sets signal handlers in the running event loop: the first SIGINT or SIGTERM calls `stop`, a second one ends the
    program at once."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop_once, stop, loop, number)


def _stop_once(stop: Callable[[], None], loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    loop.remove_signal_handler(number)
    stop()
