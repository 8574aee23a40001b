"""Mooncake's store as the KV pool of a job: one pod with Mooncake's master and memory, its Service and its
NetworkPolicy."""

# kubernetes' function has no types.
# pyright: reportUnknownVariableType=false
from collections.abc import Mapping
from typing import Any

from kubernetes.utils import parse_quantity

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_operator.objects.names import (
    DO_NOT_DISRUPT,
    DO_NOT_DISRUPT_ANNOTATION,
    SAFE_TO_EVICT_ANNOTATION,
    inherit,
    kv_pool_name,
    labels,
    metadata,
    selector,
)
from openseer_operator.objects.overlay import overlay_template
from openseer_operator.objects.pod_parts import Mounts, base_pod_spec, container_security, log_variables, service_port
from openseer_operator.settings import OperatorSettings

KV_POOL = "kv-pool"
"""Role of the KV pool's pod, and name of its container."""
KV_POOL_PORT = 29600
"""Port of the master. The next two ports are those of its metrics and of the store, which moves data through further
ports of its own choice."""
SPARE_SIXTEENTHS, SPARE_GIGABYTES = 1, 1
"""Memory of the container in addition to the KV blocks: sixteenths of their memory for their names, and GiB for the
processes."""
_TEMPLATE = "spec.kvPool.template"
_GRACE_SECONDS = 5


def has_pool_pod(job: RolloutJob) -> bool:
    """Whether the job's KV pool is a pod."""
    return job.spec.kv_pool.backend == "mooncake"


def kv_pool_address(job: RolloutJob) -> str:
    """HOST:PORT of the master, to which workers connect."""
    return f"{kv_pool_name(job)}.{job.namespace}.svc:{KV_POOL_PORT}"


def kv_pool_service(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The Service: a fixed address for the pod, because Mooncake's clients resolve the name only once."""
    ports = [service_port(name, KV_POOL_PORT + number) for number, name in enumerate(("master", "metrics", "store"))]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, uid, kv_pool_name(job), "shared"),
        "spec": {"type": "ClusterIP", "selector": selector(job, KV_POOL), "ports": ports},
    }


def kv_pool_stateful_set(job: RolloutJob, uid: str, settings: OperatorSettings, *, runs: bool) -> dict[str, Any]:
    """The StatefulSet: one pod while the job `runs`, otherwise no pod, because its memory is costly.

    Raises InputError for a template that overrides fields of the operator, or sets too little memory.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(job, uid, kv_pool_name(job), "shared"),
        "spec": {
            "serviceName": kv_pool_name(job),
            "replicas": int(runs),
            "podManagementPolicy": "Parallel",
            # An upgrade of the operator must not empty the pool of a running job.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": selector(job, KV_POOL)},
            "template": _pod_template(job, settings),
        },
    }


def _pod_template(job: RolloutJob, settings: OperatorSettings) -> dict[str, Any]:
    gigabytes = job.spec.kv_pool.max_gigabytes
    command = ["python", "-m", "openseer_worker.kv_pool.mooncake.main", "--host", "$(POD_IP)"]
    command += ["--port", str(KV_POOL_PORT), "--gigabytes", str(gigabytes)]
    memory = (gigabytes + -(-gigabytes * SPARE_SIXTEENTHS // 16) + SPARE_GIGABYTES) * 2**30
    pull_policy = job.spec.image_pull_policy or ("" if job.spec.image else settings.pull_policy)
    mounts = Mounts()
    mounts.add("tmp", "/tmp", {"emptyDir": {}})
    pod = {
        "metadata": {
            "labels": labels(job, KV_POOL),
            "annotations": {SAFE_TO_EVICT_ANNOTATION: "false", DO_NOT_DISRUPT_ANNOTATION: DO_NOT_DISRUPT},
        },
        "spec": {
            **base_pod_spec(job, settings.pods),
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": [
                {
                    "name": KV_POOL,
                    "image": job.spec.image or settings.worker_image,
                    **({"imagePullPolicy": pull_policy} if pull_policy else {}),
                    "command": command,
                    "env": [
                        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        {"name": "HOME", "value": "/tmp"},
                        {"name": "OPENSEER_TERMINATION_LOG", "value": "/dev/termination-log"},
                        *log_variables(settings.pods),
                    ],
                    "ports": [{"name": "metrics", "containerPort": KV_POOL_PORT + 1, "protocol": "TCP"}],
                    # No liveness probe: the container's main process monitors the master and the store.
                    "readinessProbe": {
                        "httpGet": {"path": "/metrics", "port": "metrics"},
                        "periodSeconds": 2,
                        "timeoutSeconds": 5,
                    },
                    "resources": {"requests": {"cpu": "1", "memory": str(memory)}, "limits": {"memory": str(memory)}},
                    "securityContext": container_security(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": mounts.mounts,
                }
            ],
            "volumes": mounts.volumes,
        },
    }
    pod = overlay_template(pod, job.spec.kv_pool.template, path=_TEMPLATE, main=KV_POOL)
    _check_memory(pod, memory)
    return inherit(pod, job, settings.pods)


def _check_memory(pod: Mapping[str, Any], least: int) -> None:
    """Raises InputError if the container's memory request or limit is below `least`, in bytes. Mooncake allocates
    memory as blocks arrive, and the kernel would kill it at the limit.
    """
    [own] = [container for container in pod["spec"]["containers"] if container["name"] == KV_POOL]
    for kind in ("requests", "limits"):
        found = own["resources"][kind]["memory"]
        try:
            fits = parse_quantity(found) >= least
        except ValueError:
            continue  # the API server reports an invalid quantity
        if not fits:
            place = f"{_TEMPLATE}.spec.containers: {kind}.memory of {KV_POOL}"
            raise InputError(f"{place}: found {found}, allowed: {least >> 30}Gi at least, for spec.kvPool.maxGigabytes")


def kv_pool_policy(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The NetworkPolicy. It permits connections from the job's workers to all ports, because Mooncake chooses some of
    them. It permits no outgoing connections, because the pod's processes connect only to one another."""
    workers = {"podSelector": {"matchLabels": selector(job, "worker")}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job, uid, kv_pool_name(job), "shared"),
        "spec": {
            "podSelector": {"matchLabels": selector(job, KV_POOL)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [workers]}],
            "egress": [],
        },
    }
