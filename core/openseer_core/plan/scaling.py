"""The number of workers of a job, and the hash of the spec from which they are created."""

import hashlib
import json

from openseer_core.manifest.fleet import BINDING_POLICIES
from openseer_core.manifest.job import RolloutJob
from openseer_core.plan.observation import RELEASED
from openseer_core.queue.messages import BatchProgress

LARGE_FLEET = 8
"""Number of workers from which on a quarter of them may be unavailable at the same time."""


def desired_workers(
    job: RolloutJob,
    progress: BatchProgress,
    *,
    runs: bool = True,
    released: bool = False,
    autoscaled: int | None = None,
) -> tuple[int, str]:
    """The wanted number of workers and its reason. The first rule that applies sets the number.

    1. A job that is suspended or over (not `runs`) has no workers.
    2. While a trainer has the GPUs (`released`) there are no workers.
    3. The tail of a batch lowers the number of rule 4 or 5.
    4. `autoscaled`: for a job with `workers.autoscale`, the number that its backlog needs; None for any other job.
    5. `workers.replicas`, which users and autoscalers write through the scale subresource.

    In the tail of a batch at most one worker per unfinished request is useful. The other workers are removed, so that
    the node pool shrinks before the batch ends. The number of unfinished requests only decreases, so the number of
    workers does not oscillate. In mode serve the next batch follows soon: there only a release by the trainer removes
    workers.
    """
    if not runs:
        return 0, "the job does not run"
    if released and job.spec.mode == "serve":
        return 0, RELEASED
    number = job.spec.workers.replicas if autoscaled is None else autoscaled
    unfinished = progress.requests - progress.closed
    scales_down = job.spec.workers.tail_release and job.spec.rollout.policy not in BINDING_POLICIES
    if scales_down and job.spec.mode == "batch" and progress.sealed and unfinished < number:
        return unfinished, f"tail: {unfinished} unfinished requests need no more workers"
    if autoscaled is None:
        return number, "spec.workers.replicas"
    return number, "spec.workers.autoscale" if number else "spec.workers.autoscale: no request waits"


def max_unavailable(job: RolloutJob) -> int:
    """Number of workers that may be replaced or evicted at the same time."""
    replicas = job.spec.workers.replicas
    return job.spec.workers.max_unavailable or (replicas // 4 if replicas >= LARGE_FLEET else 1)


def template_hash(job: RolloutJob) -> str:
    """The hash of all fields of the spec that concern workers; two jobs with identical workers have equal hashes.

    It is computed from the spec, not from the pod, so that an upgrade of the operator replaces no worker.
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
