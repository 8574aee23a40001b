"""The managed Redis of a job: StatefulSet, Service, and the Secret with its password."""

# kubernetes' function has no types.
# pyright: reportUnknownVariableType=false
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from kubernetes.utils import parse_quantity

from openseer_core.manifest.fleet import StoreSpec
from openseer_core.manifest.job import KeyRef, Persistence, RolloutJob
from openseer_core.manifest.store_url import REDIS_PORT, URL_KEY, managed_url, store_name
from openseer_operator.objects.names import (
    DO_NOT_DISRUPT,
    DO_NOT_DISRUPT_ANNOTATION,
    SAFE_TO_EVICT_ANNOTATION,
    inherit,
    labels,
    metadata,
    selector,
    with_template_hash,
)
from openseer_operator.objects.overlay import overlay_template
from openseer_operator.objects.pod_parts import (
    Mounts,
    base_pod_spec,
    container_security,
    resource_requirements,
    secret_variable,
    service_port,
    volume_claim_spec,
)
from openseer_operator.objects.status_parts import entries, part
from openseer_operator.settings import OperatorSettings

REDIS = "redis"
"""Name of the container of the managed Redis."""
PASSWORD_KEY = "password"
CONFIG_KEY = "redis.conf"
"""Key, in the Secret, of the settings of Redis that contain its password and must not be among its arguments."""
STORE_GRACE_SECONDS = 60
"""Grace period in which a stopped Redis writes its log to disk, in seconds."""
MEMORY_SHARE = Decimal("0.75")
"""Share of the container's memory for data. The rest is for buffers, and pages copied during a rewrite of the log."""
_STORE_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}
_REDIS_FOLDER, _DATA = "/etc/redis", "/data"
DATA_CLAIM = "data"
"""Name of the volume claim template in the StatefulSet; the pod's claim has a longer name (`store_claim_name`)."""
_PING = ["sh", "-c", 'test "$(redis-cli ping)" = PONG']


def store_pod_name(job: RolloutJob) -> str:
    """Name of the pod that the StatefulSet's controller creates for the managed Redis."""
    return f"{store_name(job)}-0"


def store_secret(job: RolloutJob, uid: str, name: str, password: str) -> dict[str, Any]:
    """The Secret with URL and password of the managed Redis (shared object `storeSecret`). It is created once and never
    replaced, because Redis has one password. Its hash excludes the password."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(job, uid, name, "shared"),
        "type": "Opaque",
        # A password that changed after Redis started would lock out pods that start later.
        "immutable": True,
    }
    return {
        **with_template_hash(secret),
        "stringData": {
            PASSWORD_KEY: password,
            URL_KEY: managed_url(job, password),
            CONFIG_KEY: f"requirepass {password}\n",
        },
    }


def store_stateful_set(
    job: RolloutJob, uid: str, settings: OperatorSettings, replicas: int, *, secret: str
) -> dict[str, Any]:
    """The StatefulSet: one pod, or no pod while the job is suspended. Its volume stays until the set is deleted.

    `secret`: name of the Secret with its password. Raises InputError for a template that overrides fields of the
    operator.
    """
    persistence = job.spec.store.persistence or Persistence()
    mounts = Mounts()
    mounts.add("tmp", "/tmp", {"emptyDir": {}})
    items = [{"key": CONFIG_KEY, "path": CONFIG_KEY}]
    source = {"secret": {"secretName": secret, "items": items, "defaultMode": 0o440}}
    mounts.add("config", _REDIS_FOLDER, source, read_only=True)
    claims: dict[str, Any] = {}
    if persistence.medium == "ephemeral":
        mounts.add("data", _DATA, {"emptyDir": {"sizeLimit": persistence.size}})
    else:
        mounts.add("data", _DATA, None)
        claim: dict[str, Any] = {
            "metadata": {"name": DATA_CLAIM, "labels": labels(job, "redis")},
            "spec": volume_claim_spec(persistence.size, persistence.storage_class),
        }
        inherit(claim, job, settings.pods)
        claims = {
            "volumeClaimTemplates": [claim],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
        }
    manifest: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(job, uid, store_name(job), "redis"),
        "spec": {
            "serviceName": store_name(job),
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            # An upgrade of the operator must not restart the Redis of a running job.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": selector(job, "redis")},
            "template": _pod_template(job, settings, mounts, secret),
            **claims,
        },
    }
    return with_template_hash(inherit(manifest, job, settings.pods))


def store_claim_name(job: RolloutJob) -> str:
    """Name of the volume claim that the StatefulSet's controller creates for the managed Redis."""
    return f"{DATA_CLAIM}-{store_pod_name(job)}"


def data_claims(pod: Mapping[str, Any]) -> dict[str, str]:
    """The volumes of a pod of Redis that are mounted at its data folder or below it: the claim by the volume's name, ""
    for a volume without a claim or with an ephemeral claim. A job's template may have mounted other volumes there."""
    spec: Mapping[str, Any] = pod["spec"]
    claims = {
        entry["name"]: part(entry, "persistentVolumeClaim").get("claimName", "") for entry in entries(spec, "volumes")
    }
    own = (entry for entry in entries(spec, "containers") if entry["name"] == REDIS)
    mounts = [mount for entry in own for mount in entries(entry, "volumeMounts")]
    return {mount["name"]: claims.get(mount["name"], "") for mount in mounts if _holds_data(mount["mountPath"])}


def _holds_data(path: str) -> bool:
    """Whether the normalised path is the data folder or a path below it."""
    return PurePosixPath(normpath("/" + path.lstrip("/"))).is_relative_to(_DATA)


def _pod_template(job: RolloutJob, settings: OperatorSettings, mounts: Mounts, secret: str) -> dict[str, Any]:
    pod = {
        "metadata": {
            "labels": labels(job, "redis"),
            "annotations": {SAFE_TO_EVICT_ANNOTATION: "false", DO_NOT_DISRUPT_ANNOTATION: DO_NOT_DISRUPT},
        },
        "spec": {
            **base_pod_spec(job, settings.pods),
            "terminationGracePeriodSeconds": STORE_GRACE_SECONDS,
            "containers": [
                {
                    "name": REDIS,
                    "image": settings.store_image,
                    **({"imagePullPolicy": settings.pull_policy} if settings.pull_policy else {}),
                    "command": _command(job.spec.store),
                    # redis-cli reads its password from this variable.
                    "env": [
                        {
                            "name": "REDISCLI_AUTH",
                            "valueFrom": secret_variable(KeyRef(name=secret, key=PASSWORD_KEY)),
                        }
                    ],
                    "ports": [{"name": REDIS, "containerPort": REDIS_PORT, "protocol": "TCP"}],
                    # No liveness probe: it would restart a Redis that is slow, or still reads its log.
                    "readinessProbe": {
                        "exec": {"command": _PING},
                        "periodSeconds": 2,
                        "timeoutSeconds": 5,
                        "failureThreshold": 3,
                    },
                    "resources": resource_requirements(job.spec.store.resources) or _STORE_RESOURCES,
                    "securityContext": container_security(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": mounts.mounts,
                }
            ],
            "volumes": mounts.volumes,
        },
    }
    pod = overlay_template(pod, job.spec.store.template, path="spec.store.template", main=REDIS)
    return inherit(pod, job, settings.pods)


def _command(store: StoreSpec) -> list[str]:
    options = {
        "port": str(REDIS_PORT),
        "dir": _DATA,
        "appendonly": "yes",
        "appendfsync": store.fsync,
        # No snapshots: the append-only log is sufficient, and they would double the writes.
        "save": "",
        # Redis must not evict a job's data.
        "maxmemory-policy": "noeviction",
        **_memory_limit(store),
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["redis-server", f"{_REDIS_FOLDER}/{CONFIG_KEY}", *flags]


def _memory_limit(store: StoreSpec) -> dict[str, str]:
    """Redis' own memory limit, below the container's. At its own limit Redis refuses writes, and workers retry; at the
    container's limit the kernel would kill it."""
    limit = store.resources.limits.get("memory")
    return {"maxmemory": str(int(parse_quantity(limit) * MEMORY_SHARE))} if limit else {}


def store_service(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The Service by which workers, driver and operator reach the managed Redis."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, uid, store_name(job), "shared"),
        "spec": {
            "type": "ClusterIP",
            # Clients retry until Redis answers, so they need not wait for its readiness probe.
            "publishNotReadyAddresses": True,
            "selector": selector(job, "redis"),
            "ports": [service_port(REDIS, REDIS_PORT)],
        },
    }
