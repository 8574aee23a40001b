"""Checks that a manifest can be run or served on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.worker.speculation_enabled import job_refusal
from openseer_worker.kv_pool.mooncake.installed import check_servers
from openseer_worker.kv_pool.places import check_folder

_WRONG_MODE = {
    "batch": "found serve; `openseer run` runs batch jobs; run this job with `openseer serve`",
    "serve": "found batch; `openseer serve` serves jobs of mode serve; run this job with `openseer run`",
}
_VERBS = {"batch": "run", "serve": "serve"}


def check_local_job(job: RolloutJob, mode: Literal["batch", "serve"]) -> None:
    """Raises InputError for a job that this machine cannot run: another mode than `mode`, suspended, without workers,
    with fields for a cluster, or with a KV pool that is not usable here."""
    spec, verb = job.spec, _VERBS[mode]
    if spec.mode != mode:
        raise InputError(f"spec.mode: {_WRONG_MODE[mode]}")
    if spec.suspend:
        raise InputError(f"spec.suspend: found true; set it to false to {verb} the job")
    if spec.workers.replicas < 1:
        raise InputError(f"spec.workers.replicas: found 0, needed: at least 1 worker to {verb} the job")
    if spec.routing.capture is not None and spec.routing.capture.pvc is not None:
        raise InputError("spec.routing.capture.pvc: exists only in Kubernetes; on one machine give path, or neither")
    if spec.store.secret_ref is not None:
        raise InputError(
            "spec.store.secretRef: exists only in Kubernetes; on one machine give url, or neither; for a cluster "
            "kubectl apply --dry-run=server checks the manifest"
        )
    if spec.kv_pool.backend == "mooncake":
        check_servers(spec.kv_pool.max_gigabytes * 2**30)
    if spec.kv_pool.is_on and spec.kv_pool.path is not None:
        _check_pool(spec.kv_pool.path)


def _check_pool(path: str) -> None:
    """Raises InputError if workers cannot write to the KV pool's folder. Creates nothing."""
    folder = place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        check_folder(place)
    except OSError as error:
        at = "" if place == folder else f" {place}:"
        raise InputError(
            f"spec.kvPool.path: {path}: workers cannot write there:{at} {error.strerror}; name a folder that is "
            "writable here, or remove kvPool"
        ) from error


def has_pool(job: RolloutJob) -> bool:
    """Whether the job's workers have a KV pool on this machine, where a pool on a volume claim does not exist."""
    pool = job.spec.kv_pool
    return pool.backend == "mooncake" or (pool.is_on and pool.path is not None)


def without_effect(job: RolloutJob) -> Iterator[str]:
    """Yields a line for each setting of the job that has no effect on this machine."""
    spec = job.spec
    if spec.speculation.enabled and (reason := job_refusal(spec)):
        yield f"drafts are off: {reason}"
    if spec.kv_pool.is_on and not has_pool(job):
        yield "there is no KV pool: spec.kvPool.pvc exists only in Kubernetes; on one machine give path"
