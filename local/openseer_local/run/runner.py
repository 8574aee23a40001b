"""A batch job on this machine: store, workers, driver and display, started in order and stopped in reverse order."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from openseer_core.errors import InputError, JobFailedError
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.manifest.job import RolloutJob
from openseer_driver.driver import Driver
from openseer_driver.prompts.source import open_source
from openseer_driver.routed import RoutedFiles
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunState
from openseer_driver.sampler import sample_forever, sample_now
from openseer_driver.session import OpenRun, RunPlan, settings_note
from openseer_driver.submission import Note, check_prompts
from openseer_driver.traces.batch_trace import RunTraces
from openseer_local.fleet import LocalFleet
from openseer_local.job_checks import check_local_job
from openseer_local.run.progress import ProgressDisplay
from openseer_local.session import LocalSession, Tasks, stop_on_signals
from openseer_process.span_export import span_export
from openseer_store.connect import open_store
from openseer_store.port import Store


def plan_run(
    job: RolloutJob, document: dict[str, Any], folder: RunFolder, *, fresh: bool, note: Note = lambda _: None
) -> RunPlan:
    """Makes the plan of a run and checks the parts that need no model: the job, its prompts, its folder and, unless the
    run is complete, the folder's store. `note` receives the progress of the check.

    Raises InputError and its subclasses, and OutputError.
    """
    check_local_job(job, "batch")
    plan = RunPlan(job, document, folder, check_prompts(job, open_source(job, note=note), note), fresh)
    plan.check_resumable("Use --fresh to start over, or --output for another folder")
    if plan.is_complete:
        return plan
    if folder.exists() and not fresh and not folder.store_folder.is_dir() and job.spec.store.url is None:
        raise InputError(
            f"{folder.path}: its folder store/ is missing, so the run cannot be resumed; use --fresh to start over"
        )
    return plan


class LocalRun:
    """One session of a run."""

    def __init__(self, plan: RunPlan, progress: ProgressDisplay, *, page: bool = False) -> None:
        self._plan = plan
        self._page = page
        self._progress = progress
        self._session = LocalSession(plan.job, plan.folder, progress)
        self._traces: RunTraces | None = None

    async def execute(self) -> RunState:
        """Runs until the batch is complete or `stop` is called. Raises the error that made the job fail."""
        plan = self._plan
        if not plan.fresh and (note := settings_note(plan.folder, plan.job)):
            self._progress.message(note)
        with OpenRun(plan) as run:
            run.state = await self._execute(run)
        return run.state

    def stop(self) -> None:
        """Requests a clean stop: the workers drain, and the run can be resumed."""
        self._session.stop()

    async def _execute(self, run: OpenRun) -> RunState:
        plan = self._plan
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(self._session.store_url())
            store = await open_store(url, plan.job.name, plan.job.namespace)
            stack.push_async_callback(store.close)
            await self._take_over(store, run)
            fleet = await self._session.start_fleet(stack, url, plan.job.spec.workers.replicas)
            spans = await stack.enter_async_context(span_export())
            self._traces = RunTraces(plan.job, spans) if spans is not None else None
            return await self._run_batch(store, fleet, run)

    async def _take_over(self, store: Store, run: OpenRun) -> None:
        """Empties the store for a new run; for a resumed run, ends the leases of the former workers.

        Raises InputError if a Redis of your own holds another run of the job: its requests would mix with the new
        ones.
        """
        known = await store.progress(BATCH_JOB_BATCH)
        if known.requests and not run.resumed:
            if self._plan.job.spec.store.url is not None and not self._plan.fresh:
                raise InputError(
                    f"spec.store.url: the store there holds a job {self._plan.job.name} already; resume it with its "
                    "own output folder, use --fresh to start over, or choose another metadata.name"
                )
            await store.purge()
        elif known.requests:
            await store.reap(self._plan.job.spec.failure_policy.request_retries, everything=True)
            self._progress.message(f"resuming: {run.writer.count} of {known.requests} results are already written")

    async def _drive(self, store: Store, fleet: LocalFleet, run: OpenRun) -> None:
        progress = self._progress
        progress.phase("loading the tokenizer, rendering prompts; the engine loads meanwhile")
        prepared = self._plan.prepared(fleet.limits, await store.now(), progress.detail, progress.message)
        async with prepared as (codec, groups):
            progress.phase("submitting")

            def report(submitted: int) -> None:
                progress.detail(f"{submitted:,} of {groups.groups:,} groups")

            driver = Driver(
                store,
                groups,
                run.writer,
                codec,
                policy=self._plan.policy,
                on_submitted=report,
                routed=self._routed(run),
                traces=self._traces,
            )
            await driver.submit()
            progress.wait_for_work()
            await driver.collect()
            progress.update(await sample_now(store, run.clock))  # the last periodic sample is older than the end

    def _routed(self, run: OpenRun) -> RoutedFiles | None:
        """Returns the folders of the workers' rows of routed experts and of the run's arrays, None without capture.
        Rows of another run are removed."""
        rows = self._session.routed
        return None if rows is None else RoutedFiles.begin(rows, self._plan.folder, fresh=not run.resumed)

    async def _run_batch(self, store: Store, fleet: LocalFleet, run: OpenRun) -> RunState:
        state: RunState = "stopped"

        def end_phase(tasks: Tasks) -> str:
            nonlocal state
            if not tasks["driver"].done():
                return "stopping: workers give back their requests"
            state = "complete"
            return "stopping the workers"

        work = {
            "driver": self._drive(store, fleet, run),
            "fleet": fleet.watch(),
            "samples": sample_forever(store, self._plan.folder, run.clock, self._progress.update),
            "deadline": _deadline(self._plan.job.spec.active_deadline_seconds),
        }
        if self._page:
            work["page"] = self._serve_page(store)
        await self._session.run(fleet, work, end_phase=end_phase)
        return state

    async def _serve_page(self, store: Store) -> None:
        from openseer_local.page.serving import serve_running  # noqa: PLC0415 - a slow import, needed only with --page

        def on_address(address: str, token: str) -> None:
            self._progress.message(f"page {address}  token {token}")

        try:
            await serve_running(self._plan.job, store, on_address)
        except Exception as error:  # noqa: BLE001 - no failure of the page ends the run
            self._progress.message(f"the page has stopped: {error}")
            await asyncio.Event().wait()


async def _deadline(seconds: int | None) -> None:
    """Raises JobFailedError after this time; None: never returns."""
    if seconds is None:
        await asyncio.Event().wait()
        return
    await asyncio.sleep(seconds)
    raise JobFailedError(
        f"spec.activeDeadlineSeconds: {seconds} s have passed; finished results are written, and the same command "
        "continues from there"
    )


def run_job(plan: RunPlan, progress: ProgressDisplay, *, page: bool = False) -> RunState:
    """Runs a plan in a new event loop. The first SIGINT or SIGTERM requests a clean stop, a second one aborts.

    `page`: also serves the run's live page on this machine.
    """

    async def guarded() -> RunState:
        run = LocalRun(plan, progress, page=page)
        stop_on_signals(run.stop)
        return await run.execute()

    return asyncio.run(guarded())
