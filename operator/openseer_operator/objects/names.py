"""Names, labels and annotations of a job's objects."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from openseer_core.errors import InputError
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.store_url import MOST_LABEL_CHARS
from openseer_operator.pod_settings import JobPodSettings

APP = "openseer"
MANAGER = "openseer-operator"
NAME_LABEL = "app.kubernetes.io/name"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
PREFIX = "openseer.dev/"
"""Prefix of openseer's own labels and annotations."""
JOB_LABEL = "openseer.dev/job"
ROLE_LABEL = "openseer.dev/role"
WORKER_LABEL = "openseer.dev/worker"
RANK_LABEL = "openseer.dev/rank"
TEMPLATE_ANNOTATION = "openseer.dev/template"
"""Hash of the manifest from which an object was created; an object with another hash is outdated."""
ATTEMPT_ANNOTATION = "openseer.dev/attempt"
"""On a pod: the number of its component's incarnation to which it belongs."""
AVOID_ANNOTATION = "openseer.dev/avoid"
"""On a pod: the nodes on which it must not be placed, separated by commas."""
REVIVE_ANNOTATION = "openseer.dev/revive"
"""On a job: a new value revives a failed job."""
REPLICAS_ANNOTATION = "openseer.dev/replicas"
"""On the StatefulSet of a managed Redis: its replicas, because a LIST of metadata does not contain them."""
SAFE_TO_EVICT_ANNOTATION = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT_ANNOTATION = "karpenter.sh/do-not-disrupt"
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
BUSY_COST = 1000
"""Deletion cost of a worker with running requests; that of an idle worker is 0."""
DO_NOT_DISRUPT = "true"
"""Value that all versions of Karpenter support. A duration is supported from version 1.12 on, and ignored by earlier
versions. So the operator itself limits the time, by removing the annotation."""

MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER}"
"""Selector of all objects that the operator has created."""


def worker_pod_name(job: RolloutJob, index: int, rank: int) -> str:
    """Name of a worker's pod: `J-worker-3`; in a gang, with the rank: `J-worker-3-1`. It is also the pod's host name.
    Raises InputError if it is too long."""
    name = f"{job.name}-worker-{index}"
    if job.spec.workers.parallelism.nodes > 1:
        name += f"-{rank}"
    if len(name) > MOST_LABEL_CHARS:
        raise InputError(
            f"metadata.name: pod {name} would have a name of {len(name)} characters, allowed: {MOST_LABEL_CHARS}; "
            "make a job with a shorter name"
        )
    return name


def driver_pod_name(job: RolloutJob) -> str:
    return f"{job.name}-driver"


def workers_name(job: RolloutJob) -> str:
    """Name of the workers' headless Service and of their PodDisruptionBudget."""
    return f"{job.name}-workers"


def kv_pool_name(job: RolloutJob) -> str:
    """Name of the StatefulSet and the Service of a KV pool that is a pod."""
    return f"{job.name}-kv-pool"


def config_name(job: RolloutJob) -> str:
    return f"{job.name}-job"


def output_name(job: RolloutJob) -> str:
    return f"{job.name}-output"


def labels(job: RolloutJob, role: str) -> dict[str, str]:
    """The labels of a job's object. `role`: worker, driver, redis, kv-pool, rows or shared."""
    return {NAME_LABEL: APP, MANAGED_BY_LABEL: MANAGER, **selector(job), ROLE_LABEL: role}


def selector(job: RolloutJob, role: str = "") -> dict[str, str]:
    """The labels that select all objects of a job, or those with one role."""
    return {JOB_LABEL: job.name, **({ROLE_LABEL: role} if role else {})}


def selector_text(job: RolloutJob, role: str = "") -> str:
    """The selector as text; with role worker it is the value of status.selector."""
    return ",".join(f"{name}={value}" for name, value in selector(job, role).items())


def stamp_annotations(busy: bool) -> dict[str, str | None]:
    """The stamp of a worker's pod: annotations that inform node autoscalers whether it is busy. None removes an
    annotation."""
    return {
        SAFE_TO_EVICT_ANNOTATION: "false" if busy else "true",
        DO_NOT_DISRUPT_ANNOTATION: DO_NOT_DISRUPT if busy else None,
        DELETION_COST_ANNOTATION: str(BUSY_COST) if busy else "0",
    }


def owner_references(job: RolloutJob, uid: str) -> list[dict[str, Any]]:
    """The owner references of a job's objects: Kubernetes deletes the objects with the job."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": job.name,
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def metadata(job: RolloutJob, uid: str, name: str, role: str) -> dict[str, Any]:
    """The metadata of a job's object."""
    return {
        "name": name,
        "namespace": job.namespace,
        "labels": labels(job, role),
        "annotations": {},
        "ownerReferences": owner_references(job, uid),
    }


def inherit(manifest: dict[str, Any], job: RolloutJob, settings: JobPodSettings) -> dict[str, Any]:
    """Adds those labels and annotations of the job that the admin has chosen; the manifest's own take precedence."""
    meta = manifest["metadata"]
    for part, found, names in (
        ("labels", job.metadata.labels, settings.inherit_labels),
        ("annotations", job.metadata.annotations, settings.inherit_annotations),
    ):
        chosen = {name: value for name, value in found.items() if _is_chosen(name, names)}
        # An empty map would change the hash.
        if chosen:
            meta[part] = {**chosen, **(meta.get(part) or {})}
    return manifest


def _is_chosen(name: str, names: Iterable[str]) -> bool:
    if name.startswith(PREFIX):
        return False
    return any(name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in names)


TOO_SMALL = "-small"
"""Suffix of the hash of a managed Redis while Kubernetes refuses to enlarge its volume."""


def with_template_hash(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with its hash as an annotation; equal manifests have equal hashes."""
    manifest["metadata"]["annotations"][TEMPLATE_ANNOTATION] = digest(manifest)
    return manifest


def digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
