"""A serving job on this machine: store, workers, API and display in one event loop; stopped in reverse order."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from openseer_api import heap
from openseer_api.app import create_app
from openseer_api.batch_controller import control
from openseer_api.http.auth import BearerAuth
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext, OneJob
from openseer_api.job.rows import RowsInFolder
from openseer_api.routes.batches import list_batches
from openseer_api.routes.fleet import get_job, get_workers
from openseer_core.admission import check_stops
from openseer_driver.session import settings_note
from openseer_local.fleet import LocalFleet
from openseer_local.serve.display import JobSnapshot, ServingDisplay
from openseer_local.serve.plan import ServingPlan, ServingRecord
from openseer_local.session import LocalSession, stop_on_signals
from openseer_process.logs import note_process, start_log
from openseer_process.span_export import span_export
from openseer_store.connect import open_store
from openseer_store.port import Store
from openseer_store.routed.folders import remove_all
from openseer_store.routed.removal import keep_rows_within

FLEET_SPEC_SECONDS = 0.5
"""Poll interval of the fleet spec, in seconds: the largest delay of a release or acquire of the GPUs."""
SHOW_SECONDS = 1.0
"""Interval at which the display reads the job's state, in seconds."""
FINISH_SECONDS = 2
"""Time for open HTTP responses when the server stops, in seconds; clients repeat interrupted calls."""

OnListening = Callable[[str], None]
"""Called with the URL once the API listens."""


class Serving:
    """One session of `openseer serve`."""

    def __init__(self, plan: ServingPlan, display: ServingDisplay, announce: OnListening) -> None:
        self._plan = plan
        self._display = display
        self._announce = announce
        self._session = LocalSession(plan.job, plan.folder, display)

    def stop(self) -> None:
        """Requests a clean stop: the workers give back their requests, then the store ends."""
        self._session.stop()

    async def execute(self, bound: socket.socket) -> None:
        """Serves until `stop`. Raises OpenseerError."""
        plan = self._plan
        if not plan.fresh and (note := settings_note(plan.folder, plan.job)):
            self._display.message(note)
        with plan.open_folder() as token:
            await self._execute(bound, token)

    async def _execute(self, bound: socket.socket, token: str) -> None:
        start_log(self._plan.folder.logs_folder / "api.log")
        note_process(job=f"{self._plan.job.namespace}/{self._plan.job.name}")
        record = ServingRecord(self._plan)
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(self._session.store_url())
            record.note("running")
            stack.push(_note_end(record))
            job = self._plan.job
            store = await open_store(url, job.name, job.namespace, tells_again=True)
            routed = self._session.routed
            rows = RowsInFolder(routed) if routed is not None else None
            spans = await stack.enter_async_context(span_export())
            context = JobContext(job, store, run_code=True, on_codec=heap.keep, rows=rows, spans=spans)
            stack.push_async_callback(context.close)
            if self._plan.fresh:
                await store.purge()
            if routed is not None and not record.resumed:
                await asyncio.to_thread(remove_all, routed)  # rows of an earlier job with this name
            await self._take_over(store, record)
            desired = await _desired_replicas(store, job.spec.workers.replicas)
            fleet = await self._session.start_fleet(stack, url, desired)
            trusted, refused = self._plan.trusted, context.calls
            app = create_app(OneJob(context), BearerAuth(token), trusted=trusted, refused=refused)
            server = WebServer(app, finish_seconds=FINISH_SECONDS, on_start=lambda: self._started(bound))
            await self._until_stopped(context, fleet, server, bound)

    async def _take_over(self, store: Store, record: ServingRecord) -> None:
        """Ends the leases of an earlier session, whose responses then continue from their last checkpoint."""
        if not record.resumed:
            return
        lost = await store.reap(self._plan.job.spec.failure_policy.request_retries, everything=True)
        batches = await store.batches()
        open_ = sum(not batch.progress.complete for batch in batches)
        if batches:
            ran = f"; {lost} responses continue from their last checkpoint" if lost else ""
            self._display.message(f"resuming with {len(batches)} batches, {open_} of them unfinished{ran}")

    async def _until_stopped(
        self, context: JobContext, fleet: LocalFleet, server: WebServer, bound: socket.socket
    ) -> None:
        work = {
            "fleet": fleet.watch(),
            "api": server.serve(sockets=[bound]),
            "batch controller": control(context),
            "rows": keep_rows_within(context.store, self._session.routed),
            "gpus": self._follow_fleet_spec(context.store, fleet),
            "display": self._show(context),
            "text": _load_text(context),
            "limits": _take_limits(context, fleet),
        }
        try:
            await self._session.run(
                fleet,
                work,
                end_phase=lambda _: "stopping: workers give back their requests",
                close=lambda tasks: _close_server(server, tasks["api"]),
            )
        finally:
            self._display.phase("")

    def _started(self, bound: socket.socket) -> None:
        heap.keep()
        host, port = self._plan.address.host, bound.getsockname()[1]
        self._display.phase("waiting for the first worker")
        self._announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def _follow_fleet_spec(self, store: Store, fleet: LocalFleet) -> None:
        """Scales the workers to the fleet spec, which release and acquire change."""
        replicas = self._plan.job.spec.workers.replicas
        while True:
            desired = await _desired_replicas(store, replicas)
            if desired != fleet.replicas:
                self._display.message(
                    "GPUs lent to the trainer: workers stop"
                    if not desired
                    else "GPUs returned by the trainer: workers start"
                )
                fleet.scale(desired)
            await asyncio.sleep(FLEET_SPEC_SECONDS)

    async def _show(self, context: JobContext) -> None:
        while True:
            now, job, workers, batches = await asyncio.gather(
                context.store.now(), get_job(context), get_workers(context), list_batches(context)
            )
            self._display.show(JobSnapshot(now, job, workers.workers, batches.batches))
            await asyncio.sleep(SHOW_SECONDS)


async def _close_server(server: WebServer, task: asyncio.Task[Any]) -> None:
    """Stops the server and waits for open HTTP responses, for at most 2 * FINISH_SECONDS."""
    server.should_exit = True
    await asyncio.wait({task}, timeout=2 * FINISH_SECONDS)


async def _desired_replicas(store: Store, replicas: int) -> int:
    """Number of workers that the fleet spec requests."""
    return 0 if (await store.fleet_spec()).rest == "stop" else replicas


async def _load_text(context: JobContext) -> None:
    """Loads the tokenizer, so that prompts and results may be text. Raises ModelError. Never returns."""
    await context.codec()
    await asyncio.Event().wait()


async def _take_limits(context: JobContext, fleet: LocalFleet) -> None:
    """Sets the limits by the model's configuration, which apply until workers report theirs. Raises InputError. Never
    returns."""
    context.computed = (await fleet.limits()).else_by(context.computed)
    check_stops(context.job.spec.sampling, context.computed)
    await asyncio.Event().wait()


def _note_end(record: ServingRecord) -> Callable[[Any, BaseException | None, Any], None]:
    def note(_kind: Any, error: BaseException | None, _trace: Any) -> None:
        failed = error is not None and not isinstance(error, asyncio.CancelledError)
        record.note("failed" if failed else "stopped", str(error or ""), ended=True)

    return note


def serve_job(plan: ServingPlan, display: ServingDisplay, announce: OnListening, bound: socket.socket) -> None:
    """Serves in a new event loop until SIGINT or SIGTERM; a second signal ends it at once."""

    async def guarded() -> None:
        serving = Serving(plan, display, announce)
        stop_on_signals(serving.stop)
        await serving.execute(bound)

    asyncio.run(guarded())
