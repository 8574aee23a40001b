"""Routes of vLLM, SGLang and SGLang's router that report the server's state."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from openseer_api.compat.control.transfer import RECEIVERS
from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.refusals import error_response
from openseer_api.compat.live.refused_fields import MOST_SHOWN
from openseer_api.compat.live.requests import live_of
from openseer_api.http.bodies import StrictRoute
from openseer_api.http.problems import NotFoundProblem
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_core.errors import InputError
from openseer_core.weights.loaded import is_ready
from openseer_core.weights.url import shown_url

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

WORKER_ID = "openseer"
"""The id of this server in the worker list of SGLang's router."""


@router.get("/health")
@router.get("/ping")
@router.get("/liveness")
async def health(job: Job) -> Response:
    """Returns 200 if the server and its store respond."""
    await job.snapshot()
    return Response(status_code=200)


@router.get("/health_generate")
async def health_generate(job: Job) -> Response:
    """Returns 200 if a worker is ready to generate, else 503."""
    snapshot = await job.snapshot()
    ready = [worker for worker in snapshot.workers if is_ready(snapshot.fleet_spec, worker, snapshot.now)]
    return Response(status_code=200) if ready else error_response(503, "no worker is ready yet")


@router.get("/version")
async def get_version(job: Job) -> dict[str, Any]:
    """Openseer's version."""
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
    """Returns `model_info`, the fleet's parallelism, and the parts of vLLM's configuration that trainers read."""
    parallelism, replicas = job.job.spec.workers.parallelism, job.job.spec.workers.replicas
    return await model_info(job) | {
        "version": version("openseer"),
        "tp_size": parallelism.tensor,
        "pp_size": parallelism.pipeline,
        "dp_size": replicas,
        "internal_states": [],
        "vllm_config": {
            "model_config": {
                "model": job.model_names[0],
                "dtype": await _dtype(job),
                "max_model_len": (await job.limits_of_requests()).request_tokens,
            },
            "parallel_config": {
                "tensor_parallel_size": parallelism.tensor,
                "pipeline_parallel_size": parallelism.pipeline,
                # One call changes all workers, so a client must treat them as one engine.
                "data_parallel_size": 1,
                "world_size": parallelism.tensor * parallelism.pipeline,
            },
            "lora_config": None
            if (lora := job.job.spec.model.lora) is None
            else {"max_lora_rank": lora.max_rank, "max_loras": lora.max_adapters},
            "weight_transfer_config": None
            if (transfer := job.job.spec.weights.transfer) is None
            else {"backend": transfer.backend},
        },
    }


async def _dtype(job: JobContext) -> str | None:
    """Returns torch's name of the weights' dtype: as a worker reports it, else from the manifest;
    None if both lack it."""
    reported = (worker.heartbeat.metrics.get("dtype") for worker in (await job.snapshot()).workers)
    stated = job.job.spec.model.dtype
    found = next((dtype for dtype in reported if isinstance(dtype, str)), stated if stated != "auto" else None)
    return None if found is None else f"torch.{found.removeprefix('torch.')}"


@router.get("/get_world_size")
async def world_size(job: Job) -> dict[str, Any]:
    """Returns the number of GPUs of the manifest's workers; RECEIVERS in a job with spec.weights.transfer."""
    if job.job.spec.weights.transfer is not None:
        return {"world_size": RECEIVERS}
    return {"world_size": job.gpus_per_worker * job.job.spec.workers.replicas}


@router.get("/v1/loads")
async def loads(job: Job) -> dict[str, Any]:
    """The number of unfinished requests of the compatible routes."""
    count = await live_of(job).unfinished()
    core = {"dp_rank": 0, "num_running_reqs": count, "num_waiting_reqs": 0, "num_total_reqs": count}
    return {"version": version("openseer"), "dp_rank_count": 1, "loads": [core]}


@router.get("/workers")
@router.get("/list_workers")
async def workers(request: Request, job: Job) -> Response:
    """Returns the worker list of SGLang's router, which contains this server alone."""
    url = _url(request)
    if request.url.path.endswith("/list_workers"):
        return JSONResponse({"urls": [url]})
    return JSONResponse({"workers": [_worker(url)], "total": 1})


class NewWorker(ProtocolModel):
    """The body with which a trainer registers an engine at SGLang's router."""

    url: str
    worker_type: str = "regular"


@router.post("/workers")
async def add_worker(body: NewWorker, request: Request, job: Job) -> Response:
    """Accepts this server, which is always registered, and refuses any other: no engine can be added to the fleet."""
    url = _url(request)
    shown = shown_url(body.url.rstrip("/"))
    if body.worker_type != "regular" or shown.removeprefix("http://") != url.removeprefix("http://"):
        found = f"{shown[:MOST_SHOWN]} ({body.worker_type[:MOST_SHOWN]})"
        raise InputError(f"url: found {found}, allowed: {url} (regular); no worker can be added")
    return JSONResponse({"status": "accepted", "worker_id": WORKER_ID, "url": url}, 202)


@router.delete("/workers/{worker}")
async def remove_worker(worker: str, job: Job) -> dict[str, Any]:
    """Accepts a trainer's deregistration of this server, which has no effect on the fleet."""
    if worker != WORKER_ID:
        raise NotFoundProblem(f"there is no worker {worker[:MOST_SHOWN]}; the only one is {WORKER_ID}")
    return {"status": "accepted", "worker_id": WORKER_ID}


def _url(request: Request) -> str:
    """Returns the base URL by which the caller reached this server."""
    return str(request.url.replace(query="")).rpartition("/")[0]


def _worker(url: str) -> dict[str, Any]:
    return {"id": WORKER_ID, "url": url, "worker_type": "regular", "is_healthy": True}


@router.api_route("/flush_cache", methods=["GET", "POST"])
async def flush_cache(job: Job) -> Response:
    """Does nothing, because cached KV blocks of other weights are never used. Returns 400 while requests are
    unfinished, as SGLang does, because trainers poll this route until none is left."""
    left = await live_of(job).unfinished()
    if left:
        return PlainTextResponse(f"{left} requests have not ended.\n", 400)
    return PlainTextResponse("Cache flushed.\n")


@router.post("/reset_prefix_cache")
async def reset_prefix_cache(job: Job) -> dict[str, Any]:
    """Does nothing, because cached KV blocks of other weights are never used."""
    return {"success": True}
