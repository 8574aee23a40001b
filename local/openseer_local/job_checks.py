"""What a manifest must hold to be run or served on this machine."""

from typing import Literal

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_worker.kv_pool.mooncake.installed import check_servers

_WRONG_MODE = {
    "batch": "found serve; `openseer run` runs batch jobs, `openseer serve` this one",
    "serve": "found batch; `openseer serve` serves jobs of mode serve (without prompts)",
}
_VERBS = {"batch": "run", "serve": "serve"}


def check_local_job(job: RolloutJob, mode: Literal["batch", "serve"]) -> None:
    """Raises InputError for a job of another mode, or one that cannot run outside of a cluster."""
    spec, verb = job.spec, _VERBS[mode]
    if spec.mode != mode:
        raise InputError(f"spec.mode: {_WRONG_MODE[mode]}")
    if spec.suspend:
        raise InputError(f"spec.suspend: found true; set it to false to {verb} the job")
    if spec.workers.replicas < 1:
        raise InputError(f"spec.workers.replicas: found 0, needed: at least 1 worker to {verb} the job")
    if spec.store.secret_ref is not None:
        raise InputError(
            "spec.store.secretRef: exists only in Kubernetes; on one machine give url, or neither; for a cluster "
            "kubectl apply --dry-run=server checks the manifest"
        )
    if spec.kv_pool.backend == "mooncake":
        check_servers(spec.kv_pool.max_gigabytes * 2**30)
