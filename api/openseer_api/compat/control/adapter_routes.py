"""Routes of vLLM and prime-rl by which trainers load LoRA adapters; each load is a transaction of the whole fleet."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

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
    """vLLM's. `lora_path`: a PEFT folder that every worker sees."""

    lora_name: VersionName
    lora_path: WeightsPath
    load_inplace: bool = False


class UnloadAdapter(ProtocolModel):
    """vLLM's; the name says all."""

    lora_name: VersionName
    lora_int_id: int | None = None


@router.post("/v1/load_lora_adapter")
async def load_adapter(body: LoadAdapter, job: Job) -> Response:
    """vLLM's: a name that is served is replaced only where load_inplace says so."""
    served = (await job.snapshot(fresh=True)).fleet_spec.adapter(body.lora_name)
    if served is not None and not body.load_inplace:
        raise InputError(
            f"lora_name: found {body.lora_name}, which is loaded already (version {served.version}); set load_inplace "
            "to replace it, or unload it"
        )
    return await _load(job, body)


@router.post("/load_lora_adapter")
async def replace_adapter(body: LoadAdapter, job: Job) -> Response:
    """prime-rl's: loads each step's adapter under one name, in place of the one before."""
    return await _load(job, body)


async def _load(job: JobContext, body: LoadAdapter) -> Response:
    """What runs with the adapter that is replaced goes on with the new one."""
    source, adapter = Source(path=body.lora_path), AdapterSpec(name=body.lora_name)
    outcome = await update(job, source, None, "keep", hint=body.lora_name, adapter=adapter)
    if outcome.status != 200:
        return error_response(outcome.status, outcome.message)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/v1/unload_lora_adapter")
@router.post("/unload_lora_adapter")
async def unload_adapter(body: UnloadAdapter, job: Job) -> Response:
    """vLLM's; what is unfinished of the adapter ends as aborted."""
    await remove_adapter(job, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
