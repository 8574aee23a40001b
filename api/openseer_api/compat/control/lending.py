"""Routes that lend the engines' GPU memory to the trainer, all or in parts, and take it back.

An engine's memory has two parts, weights and KV cache. Trainers first wake the weights, which they replace by new ones,
and then the KV cache. Nothing is sampled before both parts are awake.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import JSONResponse

from openseer_api.compat.control.pausing import PauseMode, set_paused, settle
from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.refusals import error_response
from openseer_api.http.bodies import StrictRoute
from openseer_api.http.problems import ConflictProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.fleet_changes import change_fleet_spec
from openseer_api.routes.access import Job
from openseer_api.routes.fleet import fleet_state
from openseer_core.errors import InputError
from openseer_core.weights.fleet_spec import MEMORY_PARTS, FleetSpec
from openseer_core.weights.rest import asleep, awake_parts, woken
from openseer_core.wire.fleet import FleetState

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

POLL_SECONDS = 0.05
"""Interval between two reads of the fleet's state, in seconds."""
SLEEP_SECONDS = 120.0
"""Timeout of a call that waits until the engines sleep, or until a part of them is awake, in seconds."""
WAKE_SECONDS = 600.0
"""Timeout of a call that waits until the engines are awake, in seconds; discarded weights must be loaded again."""
NOT_FREED = "no memory was given back: these engines run on CPUs, where sleep only stops the work"
_VLLM_TAGS = (*MEMORY_PARTS, "scheduling")
_SGLANG_TAGS = (*MEMORY_PARTS, "cuda_graph")


def _checked(tags: Collection[str] | None, allowed: Collection[str]) -> Collection[str]:
    """Returns the given tags, or all allowed ones if none are given. Raises InputError for an unknown tag."""
    if not tags:
        return allowed
    if unknown := [tag for tag in tags if tag not in allowed]:
        raise InputError(f"tags: found {unknown[0][:100]!r}, allowed: {', '.join(allowed)}")
    return tags


async def _change(job: JobContext, change: Callable[[FleetSpec, float], FleetSpec]) -> FleetSpec:
    def changed(snapshot: FleetSnapshot) -> FleetSpec:
        return change(snapshot.fleet_spec, snapshot.now)

    fleet_spec, _ = await change_fleet_spec(job, changed)
    return fleet_spec


async def _followed(job: JobContext, fleet_spec: FleetSpec) -> FleetState | Response:
    """Waits until all engines sleep or are awake, as the fleet spec requires. Returns the fleet's state, or after the
    timeout an error response.

    Raises ConflictProblem if another call has changed the engines' awake parts meanwhile.
    """
    wanted, longest = ("awake", WAKE_SECONDS) if fleet_spec.rest is None else ("released", SLEEP_SECONDS)
    loop = asyncio.get_running_loop()
    end = loop.time() + longest
    while True:
        snapshot = await job.snapshot(fresh=True)
        if awake_parts(snapshot.fleet_spec) != awake_parts(fleet_spec):
            raise ConflictProblem(
                "another call put the engines to sleep, or woke them, before this call ended; repeat the call"
            )
        state = fleet_state(snapshot, await job.store.load(), job)
        if state.state == wanted:
            return state
        if loop.time() > end:
            reports = {worker.name: worker.heartbeat.weights for worker in snapshot.workers}
            whys = {name: report.error for name, report in reports.items() if report is not None and report.error}
            waiting = ", ".join(f"{name} ({whys[name]})" if name in whys else name for name in state.waiting_for)
            return error_response(503, f"not {wanted} within {longest:g} s; waiting for {waiting}")
        await asyncio.sleep(POLL_SECONDS)


def _answer(state: FleetState | Response, content: dict[str, Any]) -> Response:
    """Returns the response with `content`, and with `freed` (whether memory was freed) if it is known;
    or the error in `state`."""
    if isinstance(state, Response):
        return state
    freed = {} if state.freed is None else {"freed": state.freed}
    return JSONResponse(content | freed | ({"note": NOT_FREED} if state.freed is False else {}))


@router.post("/sleep")
async def sleep(
    job: Job,
    level: Annotated[int, Query(ge=0, le=2)] = 1,
    mode: Annotated[PauseMode, Query()] = "abort",
) -> Response:
    """Lets the engines sleep, by vLLM's route. Level 1 moves the weights to the machine's memory, level 2 discards
    them; level 0 is a pause. `mode`: whether running requests are aborted, awaited, or continue after the wake-up."""
    if level == 0:
        await set_paused(job, True)
        await settle(job, mode)
        return JSONResponse({"status": "sleeping", "level": 0})
    await settle(job, mode)
    fleet_spec = await _change(job, lambda spec, now: asleep(spec, MEMORY_PARTS, now, keep_weights=level == 1))
    # For engines that sleep already, the level of the earlier call remains in effect.
    is_kept = fleet_spec.keeps_weights
    return _answer(await _followed(job, fleet_spec), {"status": "sleeping", "level": 1 if is_kept else 2})


@router.post("/wake_up")
async def wake_up(request: Request, job: Job) -> Response:
    """Wakes the parts in `tags`, or all, by vLLM's route. Once all are awake, new requests are admitted."""
    tags = request.query_params.getlist("tags") or None
    parts = _checked(tags, _VLLM_TAGS)
    fleet_spec = await _change(job, lambda spec, now: woken(spec, parts, now))
    state = await _followed(job, fleet_spec)
    is_awake = fleet_spec.rest is None
    if is_awake and not isinstance(state, Response):
        await set_paused(job, False)
    return _answer(state, {"status": "awake" if is_awake else "sleeping", "tags": tags})


@router.get("/is_sleeping")
async def is_sleeping(job: Job) -> dict[str, Any]:
    """Returns whether any part of the engines sleeps, or new requests are held, by vLLM's route."""
    fleet_spec = (await job.snapshot(fresh=True)).fleet_spec
    return {"is_sleeping": fleet_spec.rest is not None or fleet_spec.held}


class MemoryBody(ProtocolModel):
    """The body of SGLang's calls. The tag cuda_graph has no effect: CUDA graphs follow the KV cache."""

    tags: list[str] | None = None


@router.post("/release_memory_occupation")
async def release_memory(job: Job, body: Annotated[MemoryBody | None, Body()] = None) -> Response:
    """Lets the parts in `tags`, or all, sleep, by SGLang's route.
    Weights are kept, and running requests continue after the wake-up."""
    return await _change_memory(job, body, asleep, "released")


@router.post("/resume_memory_occupation")
async def resume_memory(job: Job, body: Annotated[MemoryBody | None, Body()] = None) -> Response:
    """Wakes the parts in `tags`, or all, by SGLang's route."""
    return await _change_memory(job, body, woken, "resumed")


async def _change_memory(
    job: JobContext,
    body: MemoryBody | None,
    change: Callable[[FleetSpec, Collection[str], float], FleetSpec],
    status: str,
) -> Response:
    parts = _checked(body and body.tags, _SGLANG_TAGS)
    fleet_spec = await _change(job, lambda spec, now: change(spec, parts, now))
    content = {"status": status, "awake": list(awake_parts(fleet_spec))}
    return _answer(await _followed(job, fleet_spec), content)
