"""Routes that pause generation, and those that lend the GPUs to the trainer.

A pause holds new requests of the compatible routes back, in every process that serves the job. Running requests are
aborted, awaited or left alone, as the mode says; batches of `/v1` are never held.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import JSONResponse

from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.refusals import error_response
from openseer_api.compat.live.requests import live_of
from openseer_api.http.bodies import StrictRoute
from openseer_api.http.problems import BusyProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.fleet_changes import change_fleet_spec
from openseer_api.routes.access import Job
from openseer_api.routes.fleet import change_rest, fleet_state
from openseer_core.errors import InputError
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.wire.fleet import Release

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

PauseMode = Literal["abort", "wait", "keep"]
POLL_SECONDS = 0.05
ABORT_SECONDS = 60.0
"""How long a pause with `abort` waits until everything has ended."""
QUIET_SECONDS = 3600.0
"""How long a pause with `wait` waits for running requests."""
REST_SECONDS = 120.0
"""How long a call waits until the engines are asleep, or awake."""


async def set_paused(job: JobContext, paused: bool) -> None:
    """Holds new requests back, or admits them again. Raises BusyProblem."""

    def changed(snapshot: FleetSnapshot) -> FleetSpec:
        fleet_spec = snapshot.fleet_spec
        if fleet_spec.held == paused:
            return fleet_spec
        return fleet_spec.changed(held=paused, held_since=snapshot.now if paused else 0.0)

    _, new = await change_fleet_spec(job, changed)
    if new:
        await job.snapshot(fresh=True)


async def settle(job: JobContext, mode: PauseMode) -> None:
    """Awaits running requests (wait), aborts them (abort) or leaves them (keep). Raises BusyProblem after a timeout."""
    if mode == "keep":
        return
    loop, live = asyncio.get_running_loop(), live_of(job)
    end = loop.time() + (ABORT_SECONDS if mode == "abort" else QUIET_SECONDS)
    while True:
        if mode == "abort":
            await live.cancel_all()
        left = await live.unfinished()
        if not left:
            return
        if loop.time() > end:
            raise BusyProblem(f"{left} requests have not ended yet; try again")
        await asyncio.sleep(POLL_SECONDS)


@router.post("/pause")
async def pause(job: Job, mode: Annotated[PauseMode, Query()] = "abort") -> dict[str, Any]:
    """vLLM's: holds new requests; what runs is ended, awaited, or goes on."""
    await set_paused(job, True)
    await settle(job, mode)
    return {"status": "paused"}


@router.post("/resume")
async def resume(job: Job) -> dict[str, Any]:
    """Lets requests in again."""
    await set_paused(job, False)
    return {"status": "resumed"}


@router.get("/is_paused")
async def is_paused(job: Job) -> dict[str, Any]:
    """Whether new requests are held."""
    return {"is_paused": (await job.snapshot(fresh=True)).fleet_spec.held}


class PauseBody(ProtocolModel):
    """SGLang's modes: abort ends what runs; in_place and retract leave it."""

    mode: Literal["abort", "retract", "in_place"] = "abort"


@router.post("/pause_generation")
async def pause_generation(job: Job, body: Annotated[PauseBody | None, Body()] = None) -> dict[str, Any]:
    """SGLang's."""
    await set_paused(job, True)
    await settle(job, "abort" if body is None or body.mode == "abort" else "keep")
    return {"message": "Generation paused successfully.", "status": "ok"}


@router.post("/continue_generation")
async def continue_generation(job: Job) -> dict[str, Any]:
    """SGLang's."""
    await set_paused(job, False)
    return {"message": "Generation continued successfully.", "status": "ok"}


# ---- GPUs lent to the trainer


async def rest(job: JobContext, how: Release | None) -> Response | None:
    """Puts all engines to sleep, or wakes them; an error when it is not done in time."""
    await change_rest(job, how)
    loop, wanted = asyncio.get_running_loop(), "released" if how is not None else "awake"
    end = loop.time() + REST_SECONDS
    while (state := fleet_state(await job.snapshot(fresh=True), await job.store.load(), job)).state != wanted:
        if loop.time() > end:
            waiting = ", ".join(state.waiting_for)
            return error_response(503, f"not {wanted} within {REST_SECONDS:g} s; waiting for {waiting}")
        await asyncio.sleep(POLL_SECONDS)
    return None


@router.post("/sleep")
async def sleep(
    job: Job,
    level: Annotated[int, Query(ge=0, le=2)] = 1,
    mode: Annotated[PauseMode, Query()] = "abort",
) -> Response:
    """vLLM's: the engines free their memory as at level 1; what runs is ended, awaited, or goes on after the waking."""
    if level == 0:
        raise InputError("level: 0 only pauses; use /pause")
    await settle(job, mode)
    # One depth of sleep: what level 2 would throw away, too, is kept in the machine's memory.
    return await rest(job, Release()) or JSONResponse({"status": "sleeping", "level": 1})


@router.post("/wake_up")
async def wake_up(request: Request, job: Job) -> Response:
    """All of the engines' memory comes back, whatever the tags."""
    tags = request.query_params.getlist("tags") or None
    return await rest(job, None) or JSONResponse({"status": "awake", "tags": tags})


@router.get("/is_sleeping")
async def is_sleeping(job: Job) -> dict[str, Any]:
    """Whether the fleet spec has the engines asleep."""
    return {"is_sleeping": (await job.snapshot(fresh=True)).fleet_spec.rest is not None}


@router.post("/release_memory_occupation")
async def release_memory(job: Job) -> Response:
    """SGLang's: the same as sleep; what runs goes on afterwards."""
    return await rest(job, Release()) or JSONResponse({"status": "released"})


@router.post("/resume_memory_occupation")
async def resume_memory(job: Job) -> Response:
    """SGLang's: the same as waking up."""
    return await rest(job, None) or JSONResponse({"status": "resumed"})
