"""A batch job on this machine: store, workers, driver and display, started in order and taken down in reverse."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from openseer_core.errors import InputError, JobFailedError
from openseer_core.manifest.job import RolloutJob
from openseer_driver.driver import Driver
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunState
from openseer_driver.sampler import sample_forever
from openseer_driver.session import OpenRun, RunPlan
from openseer_driver.submission import BATCH, read_prompts, read_source
from openseer_local.fleet import LocalFleet
from openseer_local.run.progress import ProgressDisplay
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store

REACH_SECONDS = 5.0
"""A user's Redis that does not answer for so long at the start is taken for a wrong URL."""


def plan_run(job: RolloutJob, document: dict[str, Any], folder: RunFolder, *, fresh: bool) -> RunPlan:
    """Checks what does not need the model. Raises InputError and its kind, OutputError."""
    if job.spec.mode != "batch":
        raise InputError("spec.mode: found serve; `openseer run` runs batch jobs, `openseer serve` this one")
    if job.spec.suspend:
        raise InputError("spec.suspend: found true; set it to false to run the job")
    if job.spec.workers.replicas < 1:
        raise InputError("spec.workers.replicas: found 0, needed: at least 1 worker to run the job")
    if job.spec.store.secret_ref is not None:
        raise InputError("spec.store.secretRef: exists only in Kubernetes; on one machine give url, or neither")
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
        self._stop = asyncio.Event()

    async def execute(self) -> RunState:
        """Runs until the batch is complete or a signal asks to stop. Raises what made the job fail."""
        with OpenRun(self._plan) as run:
            run.state = await self._session(run)
        return run.state

    def stop(self) -> None:
        """Asks for a clean stop: workers drain, everything stays resumable."""
        self._stop.set()

    async def _session(self, run: OpenRun) -> RunState:
        plan, folder = self._plan, self._plan.folder
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(self._store_url())
            store = await open_store(url, plan.job.name, plan.job.namespace)
            stack.push_async_callback(store.close)
            await self._take_over(store, run)
            fleet = await self._start_fleet(stack, folder.job_file, url)
            self._progress.phase("loading the tokenizer, rendering prompts; the engine loads meanwhile")
            codec, groups = await plan.render(await store.now())
            driver = Driver(store, groups, run.writer, codec)
            await driver.submit()
            return await self._until_done(store, fleet, driver)

    @asynccontextmanager
    async def _store_url(self) -> AsyncGenerator[str]:
        spec = self._plan.job.spec.store
        if spec.url is not None:
            job = self._plan.job
            await (await open_store(spec.url, job.name, job.namespace, retry_seconds=REACH_SECONDS)).close()
            yield spec.url
            return
        self._progress.phase("starting the store")
        async with EmbeddedRedis(self._plan.folder.store_folder, spec.fsync) as url:
            yield url

    async def _start_fleet(self, stack: AsyncExitStack, job_file: Path, url: str) -> LocalFleet:
        spec = self._plan.job.spec
        logs, replicas = self._plan.folder.logs_folder, spec.workers.replicas
        self._plan.folder.create(logs)
        fleet = LocalFleet(job_file, url, logs, replicas, spec.failure_policy, self._progress.message)
        stack.push_async_callback(fleet.stop, float(spec.workers.grace_period_seconds))
        await fleet.start()
        return fleet

    async def _take_over(self, store: Store, run: OpenRun) -> None:
        """A new run in a store that has the job already would mix two; an old run's leases have no holder any more."""
        known = await store.progress(BATCH)
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

    async def _until_done(self, store: Store, fleet: LocalFleet, driver: Driver) -> RunState:
        spec = self._plan.job.spec
        self._progress.phase("waiting for the first worker")
        samples = sample_forever(store, self._plan.folder, self._progress.update)
        tasks = {
            name: asyncio.create_task(work, name=name)
            for name, work in {
                "driver": driver.collect(),
                "fleet": fleet.watch(),
                "samples": samples,
                "deadline": self._deadline(spec.active_deadline_seconds),
                "stop": self._stop.wait(),
            }.items()
        }
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for name in ("driver", "fleet", "samples", "deadline"):
                if tasks[name].done():
                    tasks[name].result()
            stopped = not tasks["driver"].done()
            self._progress.phase("stopping: workers hand back what they run" if stopped else "stopping the workers")
            return "stopped" if stopped else "complete"
        finally:
            await fleet.stop(float(spec.workers.grace_period_seconds))
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _deadline(self, seconds: int | None) -> None:
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
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop_once, run, loop, number)
        return await run.execute()

    return asyncio.run(guarded())


def _stop_once(run: LocalRun, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    loop.remove_signal_handler(number)
    run.stop()
