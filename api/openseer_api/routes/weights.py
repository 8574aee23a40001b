"""Routes of weights: publish, read the state, cancel a publish, remove adapters."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from openseer_api.http.bodies import OwnRoute
from openseer_api.http.problems import ConflictProblem, NotFoundProblem, documented
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.fleet_changes import change_fleet_spec
from openseer_api.routes.access import Job
from openseer_core.admission import bad_canary
from openseer_core.errors import InputError
from openseer_core.json_model import INT53_MAX, VersionName
from openseer_core.weights import transaction
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Publish
from openseer_core.weights.url import shown_url, url_problem
from openseer_core.wire.results import MAX_WAIT_SECONDS
from openseer_core.wire.weights import Transaction, Weights, to_wire

router = APIRouter(tags=["weights"], route_class=OwnRoute)

POLL_SECONDS = 0.1
"""Interval between two reads of the fleet spec in a long poll, in seconds."""


async def publish_weights(job: JobContext, publish: Publish) -> tuple[FleetSpec, bool]:
    """Begins a transaction; returns the fleet spec, and whether the transaction is new. Raises PublishRefusedError,
    BusyProblem, and InputError for a canary that the model cannot score, an adapter with the model's name, and a host
    that the job does not allow."""
    if publish.canary is not None and (problem := bad_canary(publish.canary.token_ids, await job.limits_of_requests())):
        raise InputError(problem)
    if publish.adapter is not None and publish.adapter.name in job.model_names:
        raise InputError(f"adapter.name: found {publish.adapter.name}, which is the model's own name; give another")
    url = publish.source.url
    if url is not None and (problem := url_problem(url, job.job.spec.weights.allowed_hosts)):
        raise InputError(f"source.url: {shown_url(url)} {problem}")

    def begun(snapshot: FleetSnapshot) -> FleetSpec:
        is_adapter = publish.adapter is not None
        there = transaction.participants(snapshot.workers, snapshot.now, adapter=is_adapter)
        return transaction.begin(snapshot.fleet_spec, publish, there, snapshot.now, job.job.spec.model.lora)

    return await change_fleet_spec(job, begun)


async def take_back(job: JobContext) -> None:
    """Cancels the active transaction, if there is one. Raises BusyProblem."""
    await change_fleet_spec(job, lambda snapshot: transaction.cancel(snapshot.fleet_spec, snapshot.now))


_BEGUN: dict[int | str, dict[str, Any]] = {200: {"model": Transaction}, **documented(409, 429)}


@router.post("/weights", status_code=202, response_model=Transaction, responses=_BEGUN)
async def publish(what: Publish, job: Job, response: Response) -> Transaction | None:
    """Begins a transaction that moves the whole fleet to new weights.
    Returns 200 if the same transaction is active or done already."""
    _, new = await publish_weights(job, what)
    if not new:
        response.status_code = 200
    return (await _shown(job)).transaction


@router.get("/weights", responses=documented())
async def get_weights(
    job: Job,
    revision: Annotated[int, Query(ge=0, le=INT53_MAX, description="Revision that the caller has.")] = 0,
    wait_seconds: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
) -> Weights:
    """Returns the fleet's versions, and the latest transaction with the state of each worker. Waits up to
    `wait_seconds` for a revision above `revision`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_seconds
    while True:
        shown = await _shown(job)
        if shown.revision > revision or loop.time() >= end:
            return shown
        await asyncio.sleep(POLL_SECONDS)


@router.post("/weights/abort", responses=documented(409, 429))
async def abort(job: Job) -> Weights:
    """Cancels the active transaction: the fleet returns to its previous version."""
    await take_back(job)
    return await _shown(job)


async def remove_adapter(job: JobContext, name: str) -> None:
    """Removes an adapter from the fleet; its unfinished requests end as aborted. Raises NotFoundProblem, BusyProblem,
    and ConflictProblem while a version of the adapter is being published."""

    def removed(snapshot: FleetSnapshot) -> FleetSpec:
        fleet_spec = snapshot.fleet_spec
        active = fleet_spec.active_transaction
        if active is not None and active.publish.adapter is not None and active.publish.adapter.name == name:
            raise ConflictProblem(f"adapter {name} is being published (transaction {active.id}): abort that, or wait")
        if fleet_spec.adapter(name) is None:
            names = ", ".join(adapter.name for adapter in fleet_spec.adapters) or "none"
            raise NotFoundProblem(f"there is no adapter {name}; served: {names}")
        return fleet_spec.without(name)

    await change_fleet_spec(job, removed)
    await job.snapshot(fresh=True)  # so that no request is accepted based on an older snapshot


@router.delete("/weights/adapters/{name}", responses=documented(409, 429))
async def delete_adapter(name: Annotated[VersionName, Path()], job: Job) -> Weights:
    """Removes an adapter from the fleet. Unfinished requests of its batches end as aborted."""
    await remove_adapter(job, name)
    return await _shown(job)


async def _shown(job: JobContext) -> Weights:
    snapshot = await job.snapshot(fresh=True)
    return to_wire(snapshot.fleet_spec, snapshot.workers, snapshot.now)
