"""Routes for the server's state, as vLLM, SGLang and SGLang's router have them."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from openseer_api.compat.live.refusals import ProtocolRoute, error_response
from openseer_api.compat.live.requests import live_of
from openseer_api.routes.access import Job
from openseer_core.weights.loaded import is_ready

router = APIRouter(route_class=ProtocolRoute, include_in_schema=False)


@router.get("/health")
@router.get("/ping")
async def health(job: Job) -> Response:
    """The server and its store answer."""
    await job.snapshot()
    return Response(status_code=200)


@router.get("/health_generate")
async def health_generate(job: Job) -> Response:
    """Some worker generates, or would if it had work."""
    snapshot = await job.snapshot()
    ready = [worker for worker in snapshot.workers if is_ready(snapshot.fleet_spec, worker, snapshot.now)]
    return Response(status_code=200) if ready else error_response(503, "no worker is ready yet")


@router.get("/version")
async def get_version(job: Job) -> dict[str, Any]:
    """Openseer's own."""
    return {"version": version("openseer")}


@router.get("/model_info")
@router.get("/get_model_info")
async def model_info(job: Job) -> dict[str, Any]:
    """The model and its weights."""
    model, fleet_spec = job.job.spec.model, (await job.snapshot(fresh=True)).fleet_spec
    path = fleet_spec.source.path if fleet_spec.source is not None else None
    return {
        "model_path": path or model.path,
        "served_model_name": model.path,
        "tokenizer_path": model.tokenizer_path,
        "is_generation": True,
        "preferred_sampling_params": None,
        "weight_version": fleet_spec.version,
    }


@router.get("/server_info")
@router.get("/get_server_info")
async def server_info(job: Job) -> dict[str, Any]:
    """The same, with the fleet's shape."""
    spec = job.job.spec
    return await model_info(job) | {
        "version": version("openseer"),
        "tp_size": spec.workers.parallelism.tensor,
        "pp_size": spec.workers.parallelism.pipeline,
        "dp_size": spec.workers.replicas,
        "internal_states": [],
    }


@router.get("/get_world_size")
async def world_size(job: Job) -> dict[str, Any]:
    """GPUs of all workers that the manifest asks for."""
    return {"world_size": job.gpus_per_worker * job.job.spec.workers.replicas}


@router.get("/v1/loads")
async def loads(job: Job) -> dict[str, Any]:
    """Requests that came through the compatible routes and have not ended."""
    count = await live_of(job).unfinished()
    core = {"dp_rank": 0, "num_running_reqs": count, "num_waiting_reqs": 0, "num_total_reqs": count}
    return {"version": version("openseer"), "dp_rank_count": 1, "loads": [core]}


@router.get("/workers")
@router.get("/list_workers")
async def workers(request: Request, job: Job) -> Response:
    """The engines as SGLang's router lists them: this server is the only one."""
    url = str(request.url.replace(query="")).rpartition("/")[0]
    if request.url.path.endswith("/list_workers"):
        return JSONResponse({"urls": [url]})
    worker = {"id": "openseer", "url": url, "worker_type": "regular", "is_healthy": True}
    return JSONResponse({"workers": [worker], "total": 1})


@router.api_route("/flush_cache", methods=["GET", "POST"])
async def flush_cache(job: Job) -> Response:
    """Cached prefixes of other weights never match, so there is nothing to do; 400 while requests run, as SGLang has
    it, for trainers take that for the sign that nothing does."""
    left = await live_of(job).unfinished()
    if left:
        return PlainTextResponse(f"{left} requests have not ended.\n", 400)
    return PlainTextResponse("Cache flushed.\n")


@router.post("/reset_prefix_cache")
async def reset_prefix_cache(job: Job) -> dict[str, Any]:
    """Nothing to do: cached prefixes of other weights never match."""
    return {"success": True}
