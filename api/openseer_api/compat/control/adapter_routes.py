"""Routes of vLLM, SGLang and prime-rl that load LoRA adapters; each load is one transaction of the whole fleet.

vLLM's routes respond with a line of text, the others with JSON.
"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from openseer_api.compat.control.updating import update
from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.refusals import error_response
from openseer_api.http.bodies import StrictRoute
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_api.routes.weights import remove_adapter
from openseer_core.errors import InputError
from openseer_core.json_model import VersionName
from openseer_core.weights.publish import AdapterSpec, Source, WeightsPath

router = APIRouter(route_class=StrictRoute, include_in_schema=False)


class LoadAdapter(ProtocolModel):
    """The body of vLLM's load. `lora_path`: a PEFT folder that every worker can read."""

    lora_name: VersionName
    lora_path: WeightsPath
    load_inplace: bool = False


class ReplaceAdapter(ProtocolModel):
    """The body of SGLang's and prime-rl's load. `pinned`: ignored, because served adapters are never evicted."""

    lora_name: VersionName
    lora_path: WeightsPath
    pinned: bool = False


class UnloadAdapter(ProtocolModel):
    """The body of an unload. `lora_int_id`: ignored."""

    lora_name: VersionName
    lora_int_id: int | None = None


@router.post("/v1/load_lora_adapter")
async def load_adapter(body: LoadAdapter, job: Job) -> Response:
    """Loads an adapter by vLLM's route; replaces an adapter of the same name only with load_inplace."""
    served = (await job.snapshot(fresh=True)).fleet_spec.adapter(body.lora_name)
    if served is not None and not body.load_inplace:
        raise InputError(
            f"lora_name: found {body.lora_name}, which is loaded already (version {served.version}); set load_inplace "
            "to replace it, or unload it"
        )
    return await _load(job, body.lora_name, body.lora_path) or PlainTextResponse(
        f"Success: LoRA adapter '{body.lora_name}' added successfully."
    )


@router.post("/load_lora_adapter")
async def replace_adapter(body: ReplaceAdapter, job: Job) -> Response:
    """Loads an adapter by the route of SGLang and prime-rl; replaces an adapter of the same name."""
    return await _load(job, body.lora_name, body.lora_path) or await _loaded_response(job, body.lora_name)


async def _load(job: JobContext, name: str, path: str) -> Response | None:
    """Publishes an adapter in mode keep, so that requests of the replaced version continue with it. Returns an error
    response if the publish failed, else None."""
    outcome = await update(job, Source(path=path), None, "keep", hint=name, adapter=AdapterSpec(name=name))
    return None if outcome.status == 200 else error_response(outcome.status, outcome.message)


async def _loaded_response(job: JobContext, name: str) -> Response:
    """SGLang's response, with the field that prime-rl reads, `status`."""
    served = (await job.snapshot(fresh=True)).fleet_spec.adapters
    paths = {adapter.name: adapter.source.path or adapter.source.url for adapter in served}
    whole = {"success": True, "status": "success", "error_message": None, "lora_name": name, "loaded_adapters": paths}
    return JSONResponse(whole)


@router.post("/v1/unload_lora_adapter")
async def unload_adapter(body: UnloadAdapter, job: Job) -> Response:
    """Removes an adapter by vLLM's route; its unfinished requests end as aborted."""
    await remove_adapter(job, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


@router.post("/unload_lora_adapter")
async def drop_adapter(body: UnloadAdapter, job: Job) -> Response:
    """Removes an adapter by SGLang's route; its unfinished requests end as aborted."""
    await remove_adapter(job, body.lora_name)
    return await _loaded_response(job, body.lora_name)


@router.post("/load_lora_adapter_from_tensors")
async def not_supported(job: Job) -> Response:
    """Refuses SGLang's transfer in memory, which needs SGLang's engines."""
    message = "not supported: save the adapter in a folder that every worker can read, and use /load_lora_adapter"
    return JSONResponse({"success": False, "error_message": message}, 400)
