"""Routes that pause generation.

A pause holds back new requests of the compatible routes, in every process that serves the job. Depending on the mode,
running requests are aborted, awaited, or continue. Batches of `/v1` are never held.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query

from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.requests import live_of
from openseer_api.http.bodies import StrictRoute
from openseer_api.http.problems import BusyProblem, ConflictProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.fleet_changes import change_fleet_spec
from openseer_api.routes.access import Job
from openseer_core.weights.fleet_spec import FleetSpec

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

PauseMode = Literal["abort", "wait", "keep"]
POLL_SECONDS = 0.05
"""Interval between two checks for unfinished requests, in seconds."""
ABORT_SECONDS = 60.0
"""Timeout of a pause with `abort` until all requests have ended, in seconds."""
QUIET_SECONDS = 3600.0
"""Timeout of a pause with `wait` until all requests have ended, in seconds."""


async def set_paused(job: JobContext, paused: bool) -> None:
    """Holds new requests back (`paused`), or admits them again. Raises BusyProblem."""

    def changed(snapshot: FleetSnapshot) -> FleetSpec:
        fleet_spec = snapshot.fleet_spec
        if fleet_spec.held == paused:
            return fleet_spec
        return fleet_spec.changed(held=paused, held_since=snapshot.now if paused else 0.0)

    _, new = await change_fleet_spec(job, changed)
    if new:
        await job.snapshot(fresh=True)


async def settle(job: JobContext, mode: PauseMode, *, paused: bool = False) -> None:
    """Awaits running requests (wait), aborts them (abort) or leaves them running (keep).

    `paused`: the caller has paused generation; then ConflictProblem is raised if another call resumes it meanwhile.
    Raises BusyProblem after ABORT_SECONDS or QUIET_SECONDS.
    """
    if mode == "keep":
        return
    loop, live = asyncio.get_running_loop(), live_of(job)
    end = loop.time() + (ABORT_SECONDS if mode == "abort" else QUIET_SECONDS)
    while True:
        if mode == "abort":
            await live.cancel_all()
        left = await live.unfinished()
        if paused and not (await job.snapshot(fresh=True)).fleet_spec.held:
            raise ConflictProblem("generation was resumed before this call had paused it; pause it again")
        if not left:
            return
        if loop.time() > end:
            raise BusyProblem(f"{left} requests have not ended yet; try again")
        await asyncio.sleep(POLL_SECONDS)


@router.post("/pause")
async def pause(job: Job, mode: Annotated[PauseMode, Query()] = "abort") -> dict[str, Any]:
    """Holds new requests back, by vLLM's route; `mode`: whether running requests are aborted, awaited, or continue."""
    await set_paused(job, True)
    await settle(job, mode, paused=True)
    return {"status": "paused"}


@router.post("/resume")
async def resume(job: Job) -> dict[str, Any]:
    """Admits new requests again, by vLLM's route."""
    await set_paused(job, False)
    return {"status": "resumed"}


@router.get("/is_paused")
async def is_paused(job: Job) -> dict[str, Any]:
    """Returns whether new requests are held."""
    return {"is_paused": (await job.snapshot(fresh=True)).fleet_spec.held}


class PauseBody(ProtocolModel):
    """The body of SGLang's pause. Mode abort aborts running requests; in_place and retract leave them running."""

    mode: Literal["abort", "retract", "in_place"] = "abort"


@router.post("/pause_generation")
async def pause_generation(job: Job, body: Annotated[PauseBody | None, Body()] = None) -> dict[str, Any]:
    """Holds new requests back, by SGLang's route."""
    await set_paused(job, True)
    await settle(job, "abort" if body is None or body.mode == "abort" else "keep", paused=True)
    return {"message": "Generation paused successfully.", "status": "ok"}


@router.post("/continue_generation")
async def continue_generation(job: Job) -> dict[str, Any]:
    """Admits new requests again, by SGLang's route."""
    await set_paused(job, False)
    return {"message": "Generation continued successfully.", "status": "ok"}
