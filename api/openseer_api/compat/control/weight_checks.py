"""Routes of SGLang that check or copy weights. The checksum is the digest of the weights' files.

SGLang's other checks save, overwrite or compare tensors in the engines; they are refused.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi.responses import JSONResponse

from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.http.bodies import StrictRoute
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.routes.access import Job
from openseer_core.weights.loaded import has_loaded

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

NOT_CHECKED = (
    "allowed: checksum. Engines' tensors are neither kept aside nor overwritten: leave out slime's "
    "--check-weight-update-equal. Each update is checked instead: the digest of its files in every worker, finite "
    "scores, and with POST /v1/weights a canary, with the trainer's own log-probabilities"
)
NOT_PULLED = (
    "not supported: workers read the published folder themselves. Leave out slime's "
    "--update-weight-local-checkpoint-dir, with --update-weight-mode full; then /update_weights_from_disk names the "
    "folder. Deltas are not applied"
)


class CheckWeights(ProtocolModel):
    """The body of SGLang's check. `selector`, `skip_tensor_list`: select tensors; only all tensors are supported."""

    action: str = "checksum"
    selector: str | None = None
    skip_tensor_list: list[str] | None = None


@router.get("/weights_checker")
async def checksum(job: Job) -> Response:
    """Returns the checksum, as the POST route does without a body."""
    return await _checked(job, CheckWeights())


@router.post("/weights_checker")
async def check_weights(job: Job, body: Annotated[CheckWeights | None, Body()] = None) -> Response:
    """Returns the digest of the weights' files if all workers have loaded these weights, else an error."""
    return await _checked(job, body or CheckWeights())


async def _checked(job: JobContext, body: CheckWeights) -> Response:
    if body.action != "checksum":
        return _refused(f"action: found {body.action[:100]!r}, {NOT_CHECKED}")
    if body.selector not in (None, "all") or body.skip_tensor_list:
        return _refused("selector, skip_tensor_list: a digest is of all tensors; leave them out")
    snapshot = await job.snapshot(fresh=True)
    version, source = snapshot.fleet_spec.version, snapshot.fleet_spec.source
    if source is None or source.digest is None:
        return _refused(
            f"weights {version} have no digest: they were published without files, or no worker has read the files yet"
        )
    missing = _missing(snapshot)
    if missing is None:
        return _refused("no worker is running")
    if missing:
        return _refused(f"weights {version} are not loaded by these workers: {', '.join(missing)}")
    message = f"All workers have loaded weights {version} from files of this digest (of files, not of tensors)."
    content: dict[str, Any] = {"message": message, "per_engine_checksum": source.digest, "weight_version": version}
    return JSONResponse({"success": True} | content)


def _missing(snapshot: FleetSnapshot) -> list[str] | None:
    """Returns the workers that have not loaded the fleet's weights, by the digests they report;
    None if no worker runs."""
    reports = {worker.name: worker.heartbeat.weights for worker in snapshot.workers if worker.works(snapshot.now)}
    if not reports:
        return None
    spec = snapshot.fleet_spec
    return sorted(
        name for name, report in reports.items() if report is None or not report.loaded or not has_loaded(spec, report)
    )


@router.post("/pull_weights")
async def pull_weights(job: Job) -> Response:
    """Refuses slime's copies of a checkpoint on the engines' machines, and its weight deltas."""
    return _refused(NOT_PULLED)


def _refused(message: str) -> Response:
    return JSONResponse({"success": False, "message": message}, 400)
