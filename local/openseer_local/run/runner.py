"""A batch job on this machine: store, workers, driver and display, started in order and stopped in reverse order."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from openseer_core.errors import InputError, JobFailedError
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.manifest.job import RolloutJob
from openseer_driver.driver import Driver
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunState
from openseer_driver.sampler import sample_forever
from openseer_driver.session import OpenRun, RunPlan
from openseer_driver.submission import read_prompts, read_source
from openseer_local.fleet import LocalFleet
from openseer_local.job_checks import check_local_job
from openseer_local.run.progress import ProgressDisplay
from openseer_local.session import LocalSession, Tasks, stop_on_signals
from openseer_store.connect import open_store
from openseer_store.port import Store


def plan_run(job: RolloutJob, document: dict[str, Any], folder: RunFolder, *, fresh: bool) -> RunPlan:
    """Checks what does not need the model. Raises InputError and its kind, OutputError."""
    check_local_job(job, "batch")
    source, content = read_source(job)
    read_prompts(job, source, content)
    plan = RunPlan(job, document, folder, source, content, fresh)
    plan.check_resumable("Use --fresh to start over, or --output for another folder")
    if folder.exists() and not fresh and not folder.store_folder.is_dir() and job.spec.store.url is None:
        raise InputError(f"{folder.path}: its store/ is gone, so it cannot be resumed; use --fresh to start over")
    return plan


class LocalRun:
    """One session of a run."""

    def __init__(self, plan: RunPlan, progress: ProgressDisplay) -> None:
        self._plan = plan
        self._progress = progress
        self._session = LocalSession(plan.job, plan.folder, progress)

    async def execute(self) -> RunState:
        """Runs until the batch is complete or a signal asks to stop. Raises what made the job fail."""
        with OpenRun(self._plan) as run:
            run.state = await self._execute(run)
        return run.state

    def stop(self) -> None:
        """Asks for a clean stop: workers drain, everything stays resumable."""
        self._session.stop()

    async def _execute(self, run: OpenRun) -> RunState:
        plan = self._plan
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(self._session.store_url())
            store = await open_store(url, plan.job.name, plan.job.namespace)
            stack.push_async_callback(store.close)
            await self._take_over(store, run)
            fleet = await self._session.start_fleet(stack, url, plan.job.spec.workers.replicas)
            self._progress.phase("loading the tokenizer, rendering prompts; the engine loads meanwhile")
            codec, groups = await plan.render(await store.now())
            driver = Driver(store, groups, run.writer, codec)
            await driver.submit()
            return await self._run_batch(store, fleet, driver)

    async def _take_over(self, store: Store, run: OpenRun) -> None:
        """A new run in a store that has the job already would mix two; an old run's leases have no worker any more."""
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
            self._progress.message(f"resuming: {run.writer.count} of {known.requests} results are there already")

    async def _run_batch(self, store: Store, fleet: LocalFleet, driver: Driver) -> RunState:
        self._progress.phase("waiting for the first worker")
        state: RunState = "stopped"

        def end_phase(tasks: Tasks) -> str:
            nonlocal state
            if not tasks["driver"].done():
                return "stopping: workers hand back what they run"
            state = "complete"
            return "stopping the workers"

        work = {
            "driver": driver.collect(),
            "fleet": fleet.watch(),
            "samples": sample_forever(store, self._plan.folder, self._progress.update),
            "deadline": _deadline(self._plan.job.spec.active_deadline_seconds),
        }
        await self._session.run(fleet, work, end_phase=end_phase)
        return state


async def _deadline(seconds: int | None) -> None:
    if seconds is None:
        await asyncio.Event().wait()
        return
    await asyncio.sleep(seconds)
    raise JobFailedError(
        f"spec.activeDeadlineSeconds: {seconds} s have passed; what is finished is written, and the same "
        "command goes on from there"
    )


def run_job(plan: RunPlan, progress: ProgressDisplay) -> RunState:
    """Runs a plan in an event loop of its own. The first SIGINT or SIGTERM stops cleanly, a second one at once."""

    async def guarded() -> RunState:
        run = LocalRun(plan, progress)
        stop_on_signals(run.stop)
        return await run.execute()

    return asyncio.run(guarded())
