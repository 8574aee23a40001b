"""Routes of vLLM, SGLang and prime-rl that update weights; each update is one transaction of the whole fleet."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from openseer_api.compat.control.transfer import announce
from openseer_api.compat.control.updating import answered, update
from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.refusals import status_of
from openseer_api.compat.live.requests import live_of
from openseer_api.http.bodies import StrictRoute
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_core.errors import InputError, OpenseerError
from openseer_core.weights.publish import PublishMode, Source, WeightsPath

router = APIRouter(route_class=StrictRoute, include_in_schema=False)


class FromDisk(ProtocolModel):
    """The body of SGLang's update. `model_path`: a folder that every worker can read. `load_format`: other formats than
    these are refused, because they would change the weights."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    model_path: WeightsPath
    weight_version: Annotated[str, Field(strict=False)] | None = None
    abort_all_requests: bool = False
    flush_cache: bool = True
    load_format: Literal["auto", "safetensors"] | None = None


@router.post("/update_weights_from_disk")
async def update_from_disk(body: FromDisk, job: Job) -> Response:
    """Publishes a folder, by SGLang's route. Running requests are aborted with abort_all_requests. Otherwise they
    finish first or, if generation is paused or the engines sleep, continue with the new weights."""
    fleet_spec = (await job.snapshot(fresh=True)).fleet_spec
    sleeps, paused = fleet_spec.rest is not None, fleet_spec.held
    unfinished = await live_of(job).unfinished() if paused else 0
    mode: PublishMode = "abort" if body.abort_all_requests else "keep" if paused or sleeps else "drain"
    try:
        source = Source(path=body.model_path)
        outcome = await update(job, source, body.weight_version, mode, hint=PurePosixPath(body.model_path).name)
    except OpenseerError as error:
        return JSONResponse(
            {"success": False, "message": str(error), "num_paused_requests": unfinished}, status_of(error)
        )
    is_done = outcome.status == 200
    when = "published; engines load them when they wake" if sleeps and not fleet_spec.weights_awake else "loaded"
    message = f"Weights {outcome.version} are {when}." if is_done else outcome.message
    content = {"success": is_done, "message": message, "num_paused_requests": unfinished}
    return JSONResponse(content, outcome.status)


class UpdateWeights(ProtocolModel):
    """The body: vLLM's `update_info` (a sender's tensors), or prime-rl's `weight_dir` (a folder for all workers)."""

    update_info: dict[str, Any] | None = None
    weight_dir: WeightsPath | None = None


@router.post("/update_weights")
async def update_weights(body: UpdateWeights, job: Job) -> Response:
    """Receives tensors, by vLLM's route, and responds once they have arrived; or publishes a folder, by prime-rl's."""
    if body.weight_dir is not None and body.update_info is not None:
        raise InputError("update_info and weight_dir: found both, needed: one")
    if body.weight_dir is not None:
        hint = PurePosixPath(body.weight_dir).name
        return answered(await update(job, Source(path=body.weight_dir), None, "keep", hint=hint))
    if body.update_info is None:
        raise InputError("update_info, or weight_dir: missing")
    await announce(job, body.update_info)
    return JSONResponse({"message": "Weights updated"})


@router.post("/update_weight_version")
async def rename(new_version: Annotated[str, Body(embed=True)], job: Job) -> dict[str, Any]:
    """Accepts only the present version's name, because a version is named when it is published."""
    version = await _version(job)
    if new_version != version:
        raise InputError(
            f"new_version: found {new_version}; the fleet has {version}, which was named when it was published"
        )
    return {"success": True, "message": f"Weight version is {version}", "new_version": version}


@router.get("/get_weight_version")
@router.get("/weight_info")
async def weight_version(job: Job) -> dict[str, Any]:
    """Returns the version that the fleet serves."""
    return {"weight_version": await _version(job)}


async def _version(job: JobContext) -> str:
    return (await job.snapshot(fresh=True)).fleet_spec.version


@router.post("/init_weights_update_group")
@router.post("/update_weights_from_distributed")
@router.post("/update_weights_from_tensor")
@router.post("/update_weights_from_ipc")
async def not_supported(job: Job) -> Response:
    """Refuses SGLang's transfers in memory, which need SGLang's engines."""
    message = (
        "not supported: save the weights in a folder that every worker can read, and use /update_weights_from_disk"
    )
    return JSONResponse({"success": False, "message": message}, 400)
