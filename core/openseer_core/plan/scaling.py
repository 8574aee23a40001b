"""How many workers a job needs, and which template they are made from."""

import hashlib
import json

from openseer_core.manifest.fleet import BINDING_POLICIES
from openseer_core.manifest.job import RolloutJob
from openseer_core.plan.observation import RELEASED
from openseer_core.queue.messages import BatchProgress

LARGE_FLEET = 8
"""From so many workers on, a quarter of them may be unavailable at once."""


def desired_workers(job: RolloutJob, progress: BatchProgress, *, released: bool = False) -> tuple[int, str]:
    """Workers wanted, and the reason. `released`: a trainer has the GPUs, and no worker may be left.

    In the tail of a batch no more than one per unfinished request can be of use: the others are removed, so that the
    node pool shrinks before the batch ends. As requests only ever finish, this never flaps. In mode serve the next
    batch is never far: there only a release by the trainer takes workers away.
    """
    if released and job.spec.mode == "serve":
        return 0, RELEASED
    replicas = job.spec.workers.replicas
    unfinished = progress.requests - progress.closed
    scales_down = job.spec.workers.tail_release and job.spec.rollout.policy not in BINDING_POLICIES
    if scales_down and job.spec.mode == "batch" and progress.sealed and unfinished < replicas:
        return unfinished, f"tail: {unfinished} unfinished requests need no more"
    return replicas, "spec.workers.replicas"


def max_unavailable(job: RolloutJob) -> int:
    """Workers that may be replaced or evicted at once."""
    replicas = job.spec.workers.replicas
    return job.spec.workers.max_unavailable or (replicas // 4 if replicas >= LARGE_FLEET else 1)


def template_hash(job: RolloutJob) -> str:
    """Equal for two jobs whose workers would be the same.

    Made from the spec alone, not from the pod it becomes: another version of the operator replaces no worker.
    """
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    workers = ("parallelism", "maxInflight", "resources", "template", "gracePeriodSeconds")
    relevant = {
        **{part: spec.get(part) for part in ("model", "sampling", "rollout", "speculation", *_POD_PARTS)},
        "workers": {name: spec["workers"].get(name) for name in workers},
        "requestRetries": spec["failurePolicy"]["requestRetries"],
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


_POD_PARTS = ("image", "imagePullPolicy", "imagePullSecrets")
