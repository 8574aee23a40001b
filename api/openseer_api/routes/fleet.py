"""Routes of the job and its fleet: status, workers, figures for autoscalers, GPUs lent to the trainer, metrics."""

import asyncio
import math
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from openseer_api.http.problems import documented
from openseer_api.job.context import Glance, JobContext
from openseer_api.job.fleet_changes import change_orders
from openseer_api.job.metrics import exposition
from openseer_api.routes.access import Job
from openseer_core.queue.batch import BatchRecord, QueueLoad
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.transaction import FRESH_SECONDS, WORKING
from openseer_core.wire.batches import MAX_WAIT_SECONDS
from openseer_core.wire.fleet import Autoscaling, FleetState, FleetWord, JobStatus, Release, WorkerInfo, WorkerList
from openseer_core.wire.weights import to_wire
from openseer_core.worker.heartbeat import WorkerStatus

router = APIRouter(tags=["fleet"])
plain = APIRouter(tags=["fleet"])

SLOTS = 32
"""Taken for what a worker holds at once while none has said."""
POLL_SECONDS = 0.1


@router.get("/job", responses=documented())
async def get_job(job: Job) -> JobStatus:
    """The job at a glance."""
    glance, load, batches = await asyncio.gather(job.glance(), job.store.load(), job.store.batches())
    return JobStatus(
        name=job.job.name,
        namespace=job.job.namespace,
        weights_version=glance.orders.version,
        workers=len(glance.workers),
        workers_ready=sum(_ready(one, glance) for one in glance.workers),
        open_batches=[one.number for one in batches],
        queue_depth=sum(load.waiting.values()),
        running=load.running,
        tokens=sum(one.progress.tokens for one in batches),
        fleet=fleet_state(glance, load, job),
        transaction=to_wire(glance.orders, glance.workers, glance.now).transaction,
    )


@router.get("/workers", responses=documented())
async def get_workers(job: Job) -> WorkerList:
    """The fleet by its last heartbeats."""
    glance = await job.glance()
    return WorkerList(workers=[_worker(one, glance) for one in glance.workers])


@router.get("/autoscaling", responses=documented())
async def get_autoscaling(job: Job) -> Autoscaling:
    """Queue depth, backlog in tokens and wanted workers, for KEDA's metrics-api scaler and its kind."""
    glance, load, batches = await asyncio.gather(job.glance(), job.store.load(), job.store.batches())
    depth, workers = sum(load.waiting.values()), job.job.spec.workers
    slots = max((int(one.heartbeat.metrics.get("slots", 0)) for one in glance.workers), default=0) or SLOTS
    wanted = 0 if glance.orders.rest == "stop" else math.ceil((depth + load.running) / slots)
    most = workers.max if workers.max is not None else workers.replicas
    return Autoscaling(
        queue_depth=depth,
        running=load.running,
        backlog_tokens=sum(backlog(one, job) for one in batches),
        workers=len(glance.workers),
        desired_workers=max(workers.min or 0, min(wanted, most)),
    )


def backlog(record: BatchRecord, job: JobContext) -> int:
    """Expected tokens still to come: unfinished requests at the mean length of those that ended, or half the limit."""
    counts = record.progress
    open_ = counts.requests - counts.closed
    if not open_:
        return 0
    limit = job.sampling_of(job.spec_of(record)).max_tokens
    mean = min(limit, counts.tokens / counts.closed) if counts.closed else limit / 2
    return max(open_, round(counts.requests * mean - counts.tokens))


def _ready(worker: WorkerStatus, glance: Glance) -> bool:
    return worker.heartbeat.state in WORKING and glance.now - worker.seen_at <= FRESH_SECONDS


def _worker(worker: WorkerStatus, glance: Glance) -> WorkerInfo:
    return WorkerInfo(
        name=worker.name,
        state=worker.heartbeat.state,
        version=worker.heartbeat.weights.version if worker.heartbeat.weights is not None else "",
        seen_seconds_ago=max(0.0, glance.now - worker.seen_at),
        inflight=worker.inflight,
        figures=worker.heartbeat.metrics,
    )


# ---- GPUs lent to the trainer


@router.get("/fleet", responses=documented())
async def get_fleet(job: Job, wait_seconds: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0) -> FleetState:
    """Whether the GPUs are openseer's or the trainer's; waits until they are either."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_seconds
    while True:
        state = fleet_state(await job.glance(fresh=True), await job.store.load(), job)
        if state.state in ("awake", "released") or loop.time() >= end:
            return state
        await asyncio.sleep(POLL_SECONDS)


@router.post("/release", responses=documented(409, 429))
async def release(how: Release, job: Job) -> FleetState:
    """Lends the GPUs to the trainer: workers hand back what they run and free their memory, or stop."""
    return await change_rest(job, how)


@router.post("/acquire", responses=documented(409, 429))
async def acquire(job: Job) -> FleetState:
    """Takes the GPUs back: engines wake, or workers start, and load the fleet's weights."""
    return await change_rest(job, None)


async def change_rest(job: JobContext, how: Release | None) -> FleetState:
    """Tells the fleet to rest, or to work. Raises BusyProblem."""
    mode = how.mode if how is not None else None

    def changed(glance: Glance) -> FleetSpec:
        orders = glance.orders
        if orders.rest == mode:
            return orders
        return orders.model_copy(update={"revision": orders.revision + 1, "rest": mode, "rest_since": glance.now})

    await change_orders(job, changed)
    return fleet_state(await job.glance(fresh=True), await job.store.load(), job)


def fleet_state(glance: Glance, load: QueueLoad, job: JobContext) -> FleetState:
    """Whether what was ordered has come true, and for whom it has not."""
    orders, there = glance.orders, [one for one in glance.workers if glance.now - one.seen_at <= FRESH_SECONDS]
    asleep = {one.name for one in there if one.heartbeat.weights is not None and one.heartbeat.weights.asleep}
    names = {one.name for one in there}
    ready = {one.name for one in there if _ready(one, glance)} - asleep
    expected = set(job.worker_names()) | names if orders.rest_since else set[str]()  # never lent: who starts, starts
    waiting = {"sleep": names - asleep, "stop": names}.get(orders.rest or "", expected - ready)
    lent: tuple[FleetWord, FleetWord] = ("releasing", "released")
    words: tuple[FleetWord, FleetWord] = lent if orders.rest else ("acquiring", "awake")
    return FleetState(
        state=words[0] if waiting else words[1],
        mode=orders.rest,
        since=orders.rest_since,
        waiting_for=sorted(waiting),
        idle_gpu_seconds=job.gpus_per_worker * load.idle_seconds,
        busy_gpu_seconds=job.gpus_per_worker * load.busy_seconds,
    )


@plain.get("/metrics", response_class=PlainTextResponse, responses=documented())
async def metrics(job: Job) -> Response:
    """Prometheus' text."""
    return Response(await exposition(job), media_type=CONTENT_TYPE_LATEST)
