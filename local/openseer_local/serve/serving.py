"""A serving job on this machine: store, workers, API and display in one event loop; taken down in reverse."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from openseer_api.app import create_app
from openseer_api.batch_controller import control
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_api.routes.batches import list_batches
from openseer_api.routes.fleet import get_job, get_workers
from openseer_local.fleet import LocalFleet
from openseer_local.serve.display import ServingDisplay, Standing
from openseer_local.serve.plan import ServingPlan, ServingRecord
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store

REACH_SECONDS = 5.0
"""A user's Redis that does not answer for so long at the start is taken for a wrong URL."""
REST_SECONDS = 0.5
"""How soon the fleet follows when the trainer takes the GPUs, or gives them back."""
SHOW_SECONDS = 1.0
FINISH_SECONDS = 2
"""Answers under way have so long when the server stops; clients take up later what is cut off."""
BACKLOG = 1024
LOG_FORMAT = "%(asctime)s %(name)s: %(message)s"

OnListening = Callable[[str], None]
"""Told the URL once the API listens."""


class Serving:
    """One session of a server."""

    def __init__(self, plan: ServingPlan, display: ServingDisplay, announce: OnListening) -> None:
        self._plan = plan
        self._display = display
        self._announce = announce
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Asks for a clean stop: workers hand back what they run, the store goes last."""
        self._stop.set()

    async def execute(self, bound: socket.socket) -> None:
        """Serves until `stop`. Raises what made that impossible."""
        token = self._plan.open_folder()
        log_file = self._plan.folder.logs_folder / "api.log"
        logging.basicConfig(
            filename=log_file, format="%(asctime)s %(name)s %(message)s", level=logging.INFO, force=True
        )
        record = ServingRecord(self._plan)
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(self._store_url())
            record.note("running")
            stack.push(_note_end(record))
            job = self._plan.job
            store = await open_store(url, job.name, job.namespace)
            context = JobContext(job, store)
            stack.push_async_callback(context.close)
            if self._plan.fresh:
                await store.purge()
            await self._take_over(store, record)
            fleet = await self._start_fleet(stack, store, url)
            server = _Server(create_app(OneJob(context), BearerAuth(token)), lambda: self._started(bound))
            await self._until_stopped(context, fleet, server, bound)

    @asynccontextmanager
    async def _store_url(self) -> AsyncGenerator[str]:
        job = self._plan.job
        if job.spec.store.url is not None:
            await (await open_store(job.spec.store.url, job.name, job.namespace, retry_seconds=REACH_SECONDS)).close()
            yield job.spec.store.url
            return
        self._display.phase("starting the store")
        async with EmbeddedRedis(self._plan.folder.store_folder, job.spec.store.fsync) as url:
            yield url

    async def _take_over(self, store: Store, record: ServingRecord) -> None:
        """Leases of an earlier session have no holder any more: what ran goes on from its last checkpoint."""
        if not record.resumed:
            return
        lost = await store.reap(self._plan.job.spec.failure_policy.request_retries, everything=True)
        batches = await store.batches()
        open_ = sum(not one.progress.complete for one in batches)
        if batches:
            ran = f"; {lost} responses go on from their last checkpoint" if lost else ""
            self._display.message(f"going on with {len(batches)} batches, {open_} of them unfinished{ran}")

    async def _start_fleet(self, stack: AsyncExitStack, store: Store, url: str) -> LocalFleet:
        spec, folder = self._plan.job.spec, self._plan.folder
        wanted = await _wanted(store, spec.workers.replicas)
        fleet = LocalFleet(folder.job_file, url, folder.logs_folder, wanted, spec.failure_policy, self._display.message)
        stack.push_async_callback(fleet.stop, float(spec.workers.grace_period_seconds))
        await fleet.start()
        return fleet

    async def _until_stopped(
        self, context: JobContext, fleet: LocalFleet, server: "_Server", bound: socket.socket
    ) -> None:
        tasks = {
            name: asyncio.create_task(work, name=name)
            for name, work in {
                "fleet": fleet.watch(),
                "api": server.serve(sockets=[bound]),
                "keeper": control(context),
                "rest": self._follow_rest(context.store, fleet),
                "display": self._show(context),
                "text": _load_text(context),
                "stop": self._stop.wait(),
            }.items()
        }
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for name, task in tasks.items():
                if task.done() and name != "stop":
                    task.result()
            self._display.phase("stopping: workers hand back what they run")
        finally:
            await _end(server, tasks["api"])
            await fleet.stop(float(self._plan.job.spec.workers.grace_period_seconds))
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            self._display.phase("")

    def _started(self, bound: socket.socket) -> None:
        host, port = self._plan.address.host, bound.getsockname()[1]
        self._display.phase("waiting for the first worker")
        self._announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def _follow_rest(self, store: Store, fleet: LocalFleet) -> None:
        """Level-triggered: whoever lends the GPUs, or takes them back, writes it into the orders."""
        replicas = self._plan.job.spec.workers.replicas
        while True:
            wanted = await _wanted(store, replicas)
            if wanted != fleet.replicas:
                self._display.message("GPUs lent to the trainer: workers leave" if not wanted else "workers come back")
                fleet.scale(wanted)
            await asyncio.sleep(REST_SECONDS)

    async def _show(self, context: JobContext) -> None:
        while True:
            now, job, workers, batches = await asyncio.gather(
                context.store.now(), get_job(context), get_workers(context), list_batches(context)
            )
            self._display.show(Standing(now, job, workers.workers, batches.batches))
            await asyncio.sleep(SHOW_SECONDS)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: those of the command are for the whole session."""

    def __init__(self, app: Any, on_start: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                backlog=BACKLOG,
                timeout_graceful_shutdown=FINISH_SECONDS,
            )
        )

        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _end(server: _Server, task: asyncio.Task[Any]) -> None:
    """Lets answers under way finish, for a moment."""
    server.should_exit = True
    await asyncio.wait({task}, timeout=2 * FINISH_SECONDS)


async def _wanted(store: Store, replicas: int) -> int:
    """How many workers there should be now."""
    return 0 if (await store.fleet_spec()).rest == "stop" else replicas


async def _load_text(context: JobContext) -> None:
    """Loads the tokenizer, so that prompts and results may be text. Raises ModelError. Returns never."""
    await context.codec()
    await asyncio.Event().wait()


def _note_end(record: ServingRecord) -> Callable[[Any, BaseException | None, Any], None]:
    def note(_kind: Any, error: BaseException | None, _trace: Any) -> None:
        failed = error is not None and not isinstance(error, asyncio.CancelledError)
        record.note("failed" if failed else "stopped", str(error or ""), ended=True)

    return note


def serve_job(plan: ServingPlan, display: ServingDisplay, announce: OnListening, bound: socket.socket) -> None:
    """Serves in an event loop of its own until SIGINT or SIGTERM; a second signal ends it at once."""

    async def guarded() -> None:
        serving = Serving(plan, display, announce)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop_once, serving, loop, number)
        await serving.execute(bound)

    asyncio.run(guarded())


def _stop_once(serving: Serving, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    loop.remove_signal_handler(number)
    serving.stop()
