"""Runs a batch job's driver in a pod. The operator starts the store and the workers; the folder is on a volume.

The pod may be killed and replaced at any moment. Results in the folder stay, groups in the store are not submitted
again, and an older driver that still runs is fenced before this one opens the folder.
"""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from openseer_core.admission import ModelLimits, limits_of_manifest
from openseer_core.errors import InputError, JobFailedError, OpenseerError, OutputError
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.numbers import FIRST_BASE
from openseer_core.worker.heartbeat import reported_limits
from openseer_driver.audit.audit import AuditReport
from openseer_driver.audit.run import audit_ended
from openseer_driver.driver import Driver, new_boot
from openseer_driver.pod_metrics import PodMetrics
from openseer_driver.prompts.source import open_source
from openseer_driver.report.contexts import pool_line
from openseer_driver.routed import RoutedFiles
from openseer_driver.run_folder import RunFolder
from openseer_driver.sampler import sample_forever
from openseer_driver.session import OpenRun, RunPlan
from openseer_driver.spool import GroupSpool
from openseer_driver.submission import check_prompts
from openseer_driver.traces.batch_trace import RunTraces
from openseer_process.job_file import read_job_file
from openseer_process.logs import note_process
from openseer_process.pod_http import PodHttp
from openseer_process.span_export import span_export
from openseer_process.termination import write_termination_message
from openseer_store.connect import open_store
from openseer_store.port import Store
from openseer_store.redis_link import RETRY_SECONDS

if TYPE_CHECKING:
    from openseer_driver.report.report import Report

log = logging.getLogger("openseer.driver")

HOLD_SECONDS = 120.0
"""Limit of the wait for an earlier, fenced driver to release its lock on the folder, in seconds."""
HOLD_POLL_SECONDS = 0.5
BEAT_SECONDS = 1.0
PROGRESS_SECONDS = 10.0
DEAD_SECONDS = 60.0
"""Time for which the event loop is blocked, in seconds, after which the liveness probe fails."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Settings of a driver pod. `prompts`: mount path of the prompts; None: the job's path or url is used. `routed`:
    the job's folder of rows of routed experts."""

    job_file: Path
    output: Path
    prompts: Path | None
    store_url: str
    http_port: int
    routed: Path | None = None


class PodRun:
    """One run of a driver pod's process."""

    def __init__(self, settings: PodSettings) -> None:
        self._settings = settings
        self._metrics = PodMetrics()
        self._registry = CollectorRegistry()
        self._registry.register(self._metrics)
        self._ready = False
        self._beat_at = time.monotonic()

    async def execute(self) -> None:
        """Runs the job to its end, audits it and writes its report. Raises OpenseerError, AuditError for violations."""
        beat = asyncio.create_task(self._beat())
        try:
            with PodHttp(
                self._settings.http_port, ready=lambda: self._ready, alive=self._is_alive, registry=self._registry
            ):
                await self._execute()
        finally:
            beat.cancel()

    async def _execute(self) -> None:
        plan = await asyncio.to_thread(make_plan, self._settings)
        async with AsyncExitStack() as stack:
            log.info("waiting for the store, up to %.0f s", RETRY_SECONDS)
            job = plan.job
            note_process(job=f"{job.namespace}/{job.name}")
            url = self._settings.store_url
            store = await open_store(url, job.name, job.namespace)
            stack.push_async_callback(store.close)
            boot, fence = await _take_over(plan, store)
            spans = await stack.enter_async_context(span_export())  # closed after run.json is written
            run = await _open_run(plan, stack)
            traces = RunTraces(job, spans) if spans is not None else None
            audit = await self._drive(run, store, boot, fence, traces)
            counts = await store.progress(BATCH_JOB_BATCH)
            run.state = "complete"
        await _log_end(plan.folder, audit, pool_is_on=plan.job.spec.kv_pool.is_on)
        write_termination_message(counts.to_json())

    async def _drive(self, run: OpenRun, store: Store, boot: str, fence: int, traces: RunTraces | None) -> AuditReport:
        known = await store.progress(BATCH_JOB_BATCH)
        if run.writer.count and not known.requests:
            await _check_lost(run, store)
        if run.resumed:
            log.info("resuming: %d of %d results are already written", run.writer.count, known.requests)
        log.info("loading the tokenizer, rendering prompts")

        async def limits() -> ModelLimits:
            reported = reported_limits(await store.workers(), await store.now())
            return reported.else_by(limits_of_manifest(run.plan.job.spec.model))

        async with run.plan.prepared(limits, await store.now(), _Progress("rendered"), log.info) as (codec, groups):
            progress = _Progress("submitted")
            driver = Driver(
                store,
                groups,
                run.writer,
                codec,
                boot,
                fence,
                policy=run.plan.policy,
                on_submitted=lambda count: progress(f"{count:,} groups"),
                routed=self._routed(run),
                traces=traces,
            )
            await self._work(driver, groups, store, run)
        log.info("complete; checking every result against the journal")
        return await audit_ended(run.plan.folder, store)

    def _routed(self, run: OpenRun) -> RoutedFiles | None:
        """The writer of routed experts; None if none are captured. Raises InputError if --routed is missing."""
        if run.plan.job.spec.routing.capture is None:
            return None
        if self._settings.routed is None:
            raise InputError("spec.routing.capture: the folder of rows is missing; start the driver with --routed")
        return RoutedFiles.begin(self._settings.routed, run.plan.folder, fresh=not run.resumed)

    async def _work(self, driver: Driver, groups: GroupSpool, store: Store, run: OpenRun) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                sampling = sample_forever(store, run.plan.folder, run.clock, self._metrics.take)
                samples = tasks.create_task(sampling)
                await driver.submit()
                log.info("submitted %d groups, %d requests", groups.groups, groups.requests)
                self._ready = True
                await driver.collect()
                samples.cancel()
        except* OpenseerError as group:
            raise group.exceptions[0] from None

    async def _beat(self) -> None:
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    def _is_alive(self) -> bool:
        return time.monotonic() - self._beat_at < DEAD_SECONDS


class _Progress:
    """Logs the progress of a long operation, at most every PROGRESS_SECONDS."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            log.info("%s %s", self._what, text)


def make_plan(settings: PodSettings) -> RunPlan:
    """Makes the run's plan, with all checks that need no model. Raises InputError and its subclasses."""
    document, job = read_job_file(settings.job_file)
    progress = _Progress("prompts:")
    prompts = check_prompts(job, open_source(job, settings.prompts, note=progress), progress)
    plan = RunPlan(job, document, RunFolder(settings.output), prompts)
    plan.check_resumable("Give the job a folder of its own in spec.output, or empty this one")
    return plan


async def _take_over(plan: RunPlan, store: Store) -> tuple[str, int]:
    """Fences an earlier driver; returns this one's boot and fence. Raises InputError if the store has another run."""
    if not plan.folder.exists() and (await store.progress(BATCH_JOB_BATCH)).requests:
        raise InputError(
            f"the store already has a job {plan.job.namespace}/{plan.job.name}, and {plan.folder.path} has no run of "
            "it; give the job another name, or the store or output folder that belongs to it"
        )
    boot = new_boot()
    return boot, await store.acquire_driver(boot)


async def _open_run(plan: RunPlan, stack: AsyncExitStack) -> OpenRun:
    """Opens the folder until the stack ends; waits for an earlier driver's lock, for at most HOLD_SECONDS."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + HOLD_SECONDS
    while True:
        try:
            # In a thread, because opening reads the keys of all written results.
            return await asyncio.to_thread(stack.enter_context, OpenRun(plan))
        except OutputError as error:
            if not error.retryable or loop.time() > give_up_at:
                raise
            await asyncio.sleep(HOLD_POLL_SECONDS)


async def _check_lost(run: OpenRun, store: Store) -> None:
    """Checks a store that has no groups of the run, although results are written.

    A store that has restarted may have lost the groups; the driver then submits them again. Raises JobFailedError for
    a store in its first epoch (base FIRST_BASE), since the results cannot be audited with it.
    """
    if await store.base() > FIRST_BASE:
        log.warning("the store has lost the submitted groups; the %d written results stay", run.writer.count)
        return
    raise JobFailedError(
        f"{run.plan.folder.path} has {run.writer.count} results, but the store has no data of this job, so the job "
        "cannot continue; the results are safe; start a new job with another output folder"
    )


async def _log_end(folder: RunFolder, audit: AuditReport, *, pool_is_on: bool) -> None:
    report = await asyncio.to_thread(_write_report, folder)
    log.info("%s", report.summary)
    if pool_is_on:
        log.info("%s", pool_line(report.contexts, report.moves))
    for line in report.failures.text.splitlines():
        log.warning("%s", line)
    log.info("audit: %s", audit.lines()[0])
    log.info("results %s, report %s", folder.results_file, folder.report_page)
    audit.require()


def _write_report(folder: RunFolder) -> "Report":
    # Imported here: the import takes seconds, and a restarted driver should resume soon.
    from openseer_driver.report.html import write_report  # noqa: PLC0415

    return write_report(folder)
