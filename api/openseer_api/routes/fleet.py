"""Routes of the job and its fleet: status, workers, metrics for autoscalers, GPUs lent to the trainer, Prometheus."""

import asyncio
import math
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from openseer_api.http.bodies import OwnRoute, StrictRoute
from openseer_api.http.problems import documented
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.fleet_changes import change_fleet_spec
from openseer_api.job.metrics import exposition
from openseer_api.routes.access import Job
from openseer_core.queue.batch import BatchRecord, QueueLoad
from openseer_core.weights.fleet_spec import MEMORY_PARTS, FleetSpec
from openseer_core.weights.loaded import is_ready, why_not_loaded
from openseer_core.weights.rest import asleep, awake_parts, is_at_rest, woken
from openseer_core.wire.fleet import (
    Acquire,
    Autoscaling,
    FleetState,
    FleetWord,
    JobStatus,
    Release,
    WorkerInfo,
    WorkerList,
)
from openseer_core.wire.results import MAX_WAIT_SECONDS
from openseer_core.wire.weights import to_wire
from openseer_core.worker.heartbeat import WorkerStatus

router = APIRouter(tags=["fleet"], route_class=OwnRoute)
plain = APIRouter(tags=["fleet"], route_class=StrictRoute)

SLOTS = 32
"""Assumed number of slots of a worker, until a heartbeat reports it."""
POLL_SECONDS = 0.1
"""Interval between two reads of the fleet's state, in seconds."""


@router.get("/job", responses=documented())
async def get_job(job: Job) -> JobStatus:
    """Returns the present state of the job: weights, workers, queue, batches."""
    snapshot, load, batches = await asyncio.gather(job.snapshot(), job.store.load(), job.store.batches())
    return JobStatus(
        name=job.job.name,
        namespace=job.job.namespace,
        weights_version=snapshot.fleet_spec.version,
        workers=len(snapshot.workers),
        workers_ready=sum(_ready(worker, snapshot) for worker in snapshot.workers),
        open_batches=[record.number for record in batches],
        queue_depth=sum(load.waiting.values()),
        running=load.running,
        tokens=sum(record.progress.own_tokens for record in batches),
        fleet=fleet_state(snapshot, load, job),
        paused_since=snapshot.fleet_spec.held_since if snapshot.fleet_spec.held else None,
        transaction=to_wire(snapshot.fleet_spec, snapshot.workers, snapshot.now).transaction,
    )


@router.get("/workers", responses=documented())
async def get_workers(job: Job) -> WorkerList:
    """Returns the workers with the data of their latest heartbeats."""
    snapshot = await job.snapshot()
    return WorkerList(workers=[_worker(worker, snapshot) for worker in snapshot.workers])


@router.get("/autoscaling", responses=documented())
async def get_autoscaling(job: Job) -> Autoscaling:
    """Returns queue depth, backlog in tokens and wanted workers, for KEDA's metrics-api scaler and similar ones.

    In a cluster `desired_workers` is the operator's number, `status.backlog.workers` of the job; elsewhere it is the
    number of workers with slots for all waiting and running requests. It is at least `min` and
    at most `max` (or `replicas`) of the job's workers.
    """
    snapshot, load, batches = await asyncio.gather(job.snapshot(), job.store.load(), job.store.batches())
    depth, workers = sum(load.waiting.values()), job.job.spec.workers
    slots = max((worker.heartbeat.metrics.slots for worker in snapshot.workers), default=0) or SLOTS
    recommended = job.job.recommended_workers
    room = math.ceil((depth + load.running) / slots) if recommended is None else recommended
    wanted = 0 if snapshot.fleet_spec.rest == "stop" else room
    most = workers.max if workers.max is not None else workers.replicas
    return Autoscaling(
        queue_depth=depth,
        running=load.running,
        backlog_tokens=sum(backlog(record, job) for record in batches),
        workers=len(snapshot.workers),
        desired_workers=max(workers.min or 0, min(wanted, most)),
    )


def backlog(record: BatchRecord, job: JobContext) -> int:
    """Returns the expected number of tokens that a batch still needs. The expected length of a response is the mean of
    the ended ones or, before one has ended, half of max_tokens."""
    counts = record.progress
    open_ = counts.requests - counts.closed
    if not open_:
        return 0
    limit = job.sampling_of(job.spec_of(record)).max_tokens
    mean = min(limit, counts.tokens / counts.closed) if counts.closed else limit / 2
    return max(open_, round(counts.requests * mean - counts.tokens))


def _ready(worker: WorkerStatus, snapshot: FleetSnapshot) -> bool:
    return is_ready(snapshot.fleet_spec, worker, snapshot.now)


def _worker(worker: WorkerStatus, snapshot: FleetSnapshot) -> WorkerInfo:
    weights = worker.heartbeat.weights
    return WorkerInfo(
        name=worker.name,
        state=worker.heartbeat.state,
        version=weights.version if weights is not None else "",
        seen_seconds_ago=max(0.0, snapshot.now - worker.seen_at),
        inflight=worker.inflight,
        figures=worker.heartbeat.metrics,
        error=(why_not_loaded(snapshot.fleet_spec, weights) or None) if weights is not None else None,
    )


# ---- GPUs lent to the trainer


@router.get("/fleet", responses=documented())
async def get_fleet(job: Job, wait_seconds: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0) -> FleetState:
    """Returns whether openseer or the trainer has the GPUs.
    Waits up to `wait_seconds` until a release or acquisition ends."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_seconds
    while True:
        state = fleet_state(await job.snapshot(fresh=True), await job.store.load(), job)
        if state.state in ("awake", "released") or loop.time() >= end:
            return state
        await asyncio.sleep(POLL_SECONDS)


@router.post("/release", responses=documented(409, 429))
async def release(how: Release, job: Job) -> FleetState:
    """Lends the GPUs to the trainer: workers give back their requests, and free their GPU memory or stop."""
    return await change_rest(job, how)


@router.post("/acquire", responses=documented(409, 429))
async def acquire(job: Job, what: Annotated[Acquire | None, Body()] = None) -> FleetState:
    """Takes the GPUs back: engines wake, or workers start, and load the fleet's weights. With `parts` only these parts
    of the engines wake. An engine of which only the weights are awake can load new weights, but generates nothing."""
    return await change_rest(job, what or Acquire())


async def change_rest(job: JobContext, how: Release | Acquire) -> FleetState:
    """Releases or acquires the fleet's GPUs by a change of the fleet spec; returns the fleet's state.
    Raises BusyProblem."""

    def changed(snapshot: FleetSnapshot) -> FleetSpec:
        fleet_spec, now = snapshot.fleet_spec, snapshot.now
        if isinstance(how, Acquire):
            return woken(fleet_spec, how.parts or MEMORY_PARTS, now)
        if how.mode == "sleep" and fleet_spec.rest != "stop":
            return asleep(fleet_spec, MEMORY_PARTS, now, keep_weights=how.keep_weights)
        same = fleet_spec.rest == how.mode
        return fleet_spec if same else fleet_spec.changed(rest=how.mode, awake=(), rest_since=now)

    await change_fleet_spec(job, changed)
    return fleet_state(await job.snapshot(fresh=True), await job.store.load(), job)


def fleet_state(snapshot: FleetSnapshot, load: QueueLoad, job: JobContext) -> FleetState:
    """Returns whether the workers are awake, asleep or stopped as the fleet spec requires, and which are not yet."""
    fleet_spec = snapshot.fleet_spec
    live_workers = [worker for worker in snapshot.workers if worker.is_fresh(snapshot.now)]
    reports = {worker.name: worker.heartbeat.weights for worker in live_workers}
    sleepers = {name: report for name, report in reports.items() if report is not None and report.asleep}
    at_rest = {name for name, report in sleepers.items() if is_at_rest(fleet_spec, report)}
    freed = [report.freed for report in sleepers.values() if report.freed is not None]
    names = set(reports)
    ready = {worker.name for worker in live_workers if _ready(worker, snapshot)} - set(sleepers)
    expected = (
        set(job.worker_names()) | names if fleet_spec.rest_since else set[str]()
    )  # none if the GPUs were never lent: a starting fleet is not acquired
    waiting = {"sleep": names - at_rest, "stop": names}.get(fleet_spec.rest or "", expected - ready)
    lent: tuple[FleetWord, FleetWord] = ("releasing", "released")
    states: tuple[FleetWord, FleetWord] = lent if fleet_spec.rest else ("acquiring", "awake")
    return FleetState(
        state=states[0] if waiting else states[1],
        mode=fleet_spec.rest,
        since=fleet_spec.rest_since,
        awake=list(awake_parts(fleet_spec)),
        freed=all(freed) if freed else None,
        waiting_for=sorted(waiting),
        idle_gpu_seconds=job.gpus_per_worker * load.idle_seconds,
        busy_gpu_seconds=job.gpus_per_worker * load.busy_seconds,
    )


@plain.get("/metrics", response_class=PlainTextResponse, responses=documented())
async def metrics(job: Job) -> Response:
    """Returns the job's metrics in Prometheus' text format."""
    return Response(await exposition(job), media_type=CONTENT_TYPE_LATEST)
