"""vLLM's routes through which a trainer sends weights from its memory. One worker receives them for the whole fleet,
and they are then published.

Each route responds once the worker has done the step, as with one vLLM server. The sender's process group has one
receiver, so its size does not depend on the number of workers (core's Reception).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import JsonValue

from openseer_api.compat.control.updating import answered, update
from openseer_api.http.bodies import StrictRoute
from openseer_api.http.problems import BusyProblem, ConflictProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.fleet_changes import change_fleet_spec
from openseer_api.routes.access import Job
from openseer_core.errors import InputError, OpenseerError
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Source
from openseer_core.weights.reception import (
    BEGIN_SECONDS,
    FINISH_SECONDS,
    JOIN_SECONDS,
    UPDATE_SECONDS,
    Reception,
)
from openseer_core.weights.url import url_problem
from openseer_core.worker.heartbeat import ReceptionReport

log = logging.getLogger(__name__)
router = APIRouter(route_class=StrictRoute, include_in_schema=False)

RECEIVERS = 1
"""Number of receivers in the sender's process group: one worker receives for the fleet, whatever its size."""
POLL_SECONDS, LAST_POLL_SECONDS = 0.05, 0.5
"""Shortest and longest interval between two reads of the worker's report, in seconds. It grows with the time waited,
because each read includes the fleet spec, which may be large."""
GRACE_SECONDS = 10.0
"""Time added to each timeout, in seconds: a worker that reaches the same timeout can still report its error."""


@router.post("/init_weight_transfer_engine")
async def init_transfer(init_info: Annotated[dict[str, JsonValue], Body(embed=True)], job: Job) -> dict[str, Any]:
    """Makes a worker join the sender's process group, and leave an earlier one; responds once it has joined."""

    def opened(snapshot: FleetSnapshot) -> FleetSpec:
        worker = min(
            (worker for worker in snapshot.workers if worker.works(snapshot.now)),
            key=lambda worker: (len(worker.name), worker.name),  # scale-down removes the highest numbers first
            default=None,
        )
        if worker is None:
            raise BusyProblem("no worker is ready to receive weights; try again once /health_generate answers 200")
        number = snapshot.fleet_spec.changed().revision
        reception = Reception(id=number, worker=worker.name, boot=worker.boot, init=init_info)
        return snapshot.fleet_spec.changed(reception=reception)

    async with _logged("joining"):
        _check_init(job, init_info)
        fleet_spec, _ = await change_fleet_spec(job, opened)
        await _reached(job, fleet_spec, JOIN_SECONDS)
    return {"message": "Weight transfer initialized"}


@router.post("/start_weight_update")
async def start_update(job: Job) -> dict[str, Any]:
    """Begins an update, and drops an unfinished one."""
    async with _logged("beginning"):
        await _reached(job, await _change(job, Reception.begun), BEGIN_SECONDS)
    return {"message": "Weight update started"}


async def announce(job: JobContext, update_info: dict[str, JsonValue]) -> None:
    """Makes the worker receive the tensors of one update; returns once they have arrived. `update_info`: vLLM's."""
    async with _logged("receiving"):
        fleet_spec = await _change(job, lambda reception: reception.announced(update_info))
        await _reached(job, fleet_spec, UPDATE_SECONDS)


@router.post("/finish_weight_update")
async def finish_update(job: Job, weight_version: Annotated[str | None, Body(embed=True)] = None) -> Response:
    """Publishes the received weights in one transaction of mode keep: running requests continue with them."""
    async with _logged("finishing"):
        report = await _reached(job, await _change(job, Reception.ended), FINISH_SECONDS)
    source = Source(path=report.path, digest=report.digest)
    return answered(await update(job, source, weight_version, "keep", hint="transfer"))


@router.post("/shutdown_weight_transfer_engine")
async def shutdown_transfer(job: Job) -> dict[str, Any]:
    """Makes the worker leave the sender's process group."""

    def closed(snapshot: FleetSnapshot) -> FleetSpec:
        fleet_spec = snapshot.fleet_spec
        return fleet_spec if fleet_spec.reception is None else fleet_spec.changed(reception=None)

    await change_fleet_spec(job, closed)
    return {"message": "Weight transfer engine shut down"}


@asynccontextmanager
async def _logged(step: str) -> AsyncGenerator[None]:
    """Logs the step's beginning, end and error: vLLM's client shows only the status."""
    begun = asyncio.get_running_loop().time()
    log.info("weights from a sender: %s", step)
    try:
        yield
    except OpenseerError as error:
        log.warning("weights from a sender: %s: %s", step, error)
        raise
    log.info("weights from a sender: %s took %.1f s", step, asyncio.get_running_loop().time() - begun)


def _check_init(job: JobContext, init: dict[str, JsonValue]) -> None:
    """Raises InputError for a job that accepts no sender, and for a process group that the fleet cannot join."""
    if job.job.spec.weights.transfer is None:
        raise InputError(
            "no sender is accepted: set the job's spec.weights.transfer (a backend, a folder that all workers see), "
            "or publish weights by folder"
        )
    size, first = init.get("world_size"), init.get("rank_offset")
    # Rank 0 sends: a receiver of rank 0 would keep the uninitialized content of its own tensors.
    if not (type(size) is int and type(first) is int and first > 0 and size == first + RECEIVERS):
        raise InputError(
            f"init_info: found rank_offset {first!r} and world_size {size!r}, needed: a rank_offset of 1 or more, for "
            f"rank 0 sends, and a world_size of rank_offset + {RECEIVERS}, for the fleet receives as one "
            "(/get_world_size)"
        )
    address, port = init.get("master_address"), init.get("master_port")
    hosts = job.job.spec.weights.allowed_hosts
    if hosts and "nccl_unique_id_b64" in init:
        raise InputError(
            "init_info.nccl_unique_id_b64: the sender's host cannot be read from it, and the job restricts hosts "
            "(spec.weights.allowedHosts); send master_address and master_port"
        )
    if address is not None and (problem := url_problem(f"http://{address}:{port}", hosts)):
        raise InputError(f"init_info: master_address and master_port: {address}:{port} {problem}")


async def _change(job: JobContext, change: Callable[[Reception], Reception]) -> FleetSpec:
    """Applies `change` to the reception and returns the fleet spec. Raises ConflictProblem if there is no reception."""

    def changed(snapshot: FleetSnapshot) -> FleetSpec:
        fleet_spec = snapshot.fleet_spec
        if fleet_spec.reception is None:
            raise ConflictProblem("no sender's group was joined; call /init_weight_transfer_engine first")
        reception = change(fleet_spec.reception)
        return fleet_spec if reception is fleet_spec.reception else fleet_spec.changed(reception=reception)

    fleet_spec, _ = await change_fleet_spec(job, changed)
    return fleet_spec


async def _reached(job: JobContext, fleet_spec: FleetSpec, seconds: float) -> ReceptionReport:
    """Waits until the worker reports that it has done all steps of the reception in `fleet_spec`; returns the report.

    `seconds`: timeout, without GRACE_SECONDS. Raises ConflictProblem after it, if the worker has failed or ended, and
    if another call has changed the reception.
    """
    reception = fleet_spec.reception
    assert reception is not None
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        snapshot = await job.snapshot(fresh=True)
        now = snapshot.fleet_spec.reception
        if now != reception:
            raise ConflictProblem("another call has begun an update, or has joined another group; begin again")
        worker = next((worker for worker in snapshot.workers if worker.name == reception.worker), None)
        if worker is None or worker.boot != reception.boot or not worker.works(snapshot.now):
            raise ConflictProblem(
                f"{reception.worker}, the receiving worker, has ended; the fleet keeps its weights; join again"
            )
        report = worker.heartbeat.weights and worker.heartbeat.weights.reception
        if report and report.id == reception.id:
            if report.error:
                raise ConflictProblem(f"{reception.worker}: {report.error}; join again")
            if reception.is_followed(report):
                return report
        waited = loop.time() - begun
        if waited > seconds + GRACE_SECONDS:
            raise ConflictProblem(f"{reception.worker}: not done within {seconds:g} s; join again")
        await asyncio.sleep(min(max(POLL_SECONDS, waited / 20), LAST_POLL_SECONDS))
