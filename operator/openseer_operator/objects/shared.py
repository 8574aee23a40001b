"""What the pods of a job stand on: its services, policies, volumes and the Redis that the operator runs for it."""

import json
from typing import Any

from openseer_core.manifest.job import KeyRef, Persistence, RolloutJob
from openseer_core.manifest.store_url import URL_KEY, manages_store, store_name
from openseer_core.plan.scaling import max_unavailable
from openseer_operator.objects.names import (
    DO_NOT_DISRUPT_ANNOTATION,
    SAFE_TO_EVICT_ANNOTATION,
    config_name,
    labels,
    metadata,
    output_name,
    sealed,
    selector,
    workers_name,
)
from openseer_operator.objects.overlay import overlaid
from openseer_operator.objects.pods import (
    GANG_PORT,
    HTTP_PORT,
    Mounts,
    container_security,
    resources_of,
    secret_key,
    shell_of,
)
from openseer_operator.settings import OperatorSettings

REDIS = "redis"
"""Name of the container of the managed Redis."""
REDIS_PORT = 6379
PASSWORD_KEY = "password"
CONFIG_KEY = "redis.conf"
"""Of the Secret: the part of Redis' settings that nobody may read in its arguments."""
STORE_GRACE_SECONDS = 60
"""What Redis has to write its log to disk when it is stopped."""
_STORE_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}
_REDIS_FOLDER, _DATA = "/etc/redis", "/data"
_PING = ["sh", "-c", 'test "$(redis-cli ping)" = PONG']


def shared_objects(
    job: RolloutJob, uid: str, settings: OperatorSettings, desired: int = 0
) -> dict[str, dict[str, Any]]:
    """All of them by key, but for the managed Redis itself (`store_set`) and its password (`store_secret`).

    `desired`: workers wanted now, fewer than replicas in the tail of a batch; 0 when that is not known yet.
    """
    objects = {
        "serviceAccount": _service_account(job, uid),
        "config": _config(job, uid),
        "workersService": _workers_service(job, uid),
        "disruptionBudget": _disruption_budget(job, uid, desired or job.spec.workers.replicas),
    }
    if settings.network_policies:
        objects["networkPolicy"] = _network_policy(job, uid, settings)
    if job.spec.mode == "batch" and job.spec.output.pvc is None:
        objects["output"] = _output(job, uid)
    if manages_store(job):
        objects["storeService"] = _store_service(job, uid)
    return {key: sealed(manifest) for key, manifest in objects.items()}


def store_secret(job: RolloutJob, uid: str, password: str) -> dict[str, Any]:
    """How to reach the managed Redis; key `storeSecret`. To be created once and never replaced: Redis knows one
    password. Its hash leaves out what is secret, so that it is the same for every password."""
    host = f"{store_name(job)}.{job.namespace}.svc"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(job, uid, store_name(job), "shared"),
        "type": "Opaque",
        # A changed password would lock out whoever reads it after Redis did.
        "immutable": True,
    }
    return {
        **sealed(secret),
        "stringData": {
            PASSWORD_KEY: password,
            URL_KEY: f"redis://:{password}@{host}:{REDIS_PORT}/0",
            CONFIG_KEY: f"requirepass {password}\n",
        },
    }


def store_set(job: RolloutJob, uid: str, settings: OperatorSettings, replicas: int) -> dict[str, Any]:
    """The managed Redis: one pod, or none while the job is suspended; its volume stays until the set is deleted.

    Raises InputError for a template that overrides what the operator sets.
    """
    persistence = job.spec.store.persistence or Persistence()
    mounts = Mounts()
    mounts.add("tmp", "/tmp", {"emptyDir": {}})
    items = [{"key": CONFIG_KEY, "path": CONFIG_KEY}]
    source = {"secret": {"secretName": store_name(job), "items": items, "defaultMode": 0o440}}
    mounts.add("config", _REDIS_FOLDER, source, read_only=True)
    claims: dict[str, Any] = {}
    if persistence.medium == "ephemeral":
        mounts.add("data", _DATA, {"emptyDir": {"sizeLimit": persistence.size}})
    else:
        mounts.add("data", _DATA, None)
        claim = {
            "metadata": {"name": "data", "labels": labels(job, "redis")},
            "spec": _claim(persistence.size, persistence.storage_class),
        }
        claims = {
            "volumeClaimTemplates": [claim],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
        }
    return sealed(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": metadata(job, uid, store_name(job), "redis"),
            "spec": {
                "serviceName": store_name(job),
                "replicas": replicas,
                "podManagementPolicy": "Parallel",
                # Another version of the operator must not restart the Redis of a job that runs.
                "updateStrategy": {"type": "OnDelete"},
                "selector": {"matchLabels": selector(job, "redis")},
                "template": _store_template(job, settings, mounts),
                **claims,
            },
        }
    )


def _store_template(job: RolloutJob, settings: OperatorSettings, mounts: Mounts) -> dict[str, Any]:
    pod = {
        "metadata": {
            "labels": labels(job, "redis"),
            "annotations": {SAFE_TO_EVICT_ANNOTATION: "false", DO_NOT_DISRUPT_ANNOTATION: "true"},
        },
        "spec": {
            **shell_of(job),
            "terminationGracePeriodSeconds": STORE_GRACE_SECONDS,
            "containers": [
                {
                    "name": REDIS,
                    "image": settings.store_image,
                    **({"imagePullPolicy": settings.pull_policy} if settings.pull_policy else {}),
                    "command": _redis_command(job.spec.store.fsync),
                    # Read by redis-cli.
                    "env": [
                        {
                            "name": "REDISCLI_AUTH",
                            "valueFrom": secret_key(KeyRef(name=store_name(job), key=PASSWORD_KEY)),
                        }
                    ],
                    "ports": [{"name": REDIS, "containerPort": REDIS_PORT, "protocol": "TCP"}],
                    # No liveness probe: a Redis that is slow, or still reads its log, must not be restarted for it.
                    "readinessProbe": {
                        "exec": {"command": _PING},
                        "periodSeconds": 2,
                        "timeoutSeconds": 5,
                        "failureThreshold": 3,
                    },
                    "resources": resources_of(job.spec.store.resources) or _STORE_RESOURCES,
                    "securityContext": container_security(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": mounts.mounts,
                }
            ],
            "volumes": mounts.volumes,
        },
    }
    return overlaid(pod, job.spec.store.template, path="spec.store.template", main=REDIS)


def _redis_command(fsync: str) -> list[str]:
    options = {
        "port": str(REDIS_PORT),
        "dir": _DATA,
        "appendonly": "yes",
        "appendfsync": fsync,
        # The log alone is enough; a snapshot beside it would double the writes.
        "save": "",
        # Nothing of a job may be dropped to make room.
        "maxmemory-policy": "noeviction",
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["redis-server", f"{_REDIS_FOLDER}/{CONFIG_KEY}", *flags]


def _service_account(job: RolloutJob, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(job, uid, job.name, "shared"),
        "automountServiceAccountToken": False,
    }


def _config(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The job as its workers and its driver read it."""
    read = {"metadata": {"name", "namespace", "labels"}, "api_version": True, "kind": True, "spec": True}
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True, include=read)
    document["metadata"]["namespace"] = job.namespace
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, uid, config_name(job), "shared"),
        "data": {"job.json": json.dumps(document, indent=1)},
    }


def _workers_service(job: RolloutJob, uid: str) -> dict[str, Any]:
    """Names for the pods of gangs before they are ready, for they find one another by them."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, uid, workers_name(job), "shared"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(job, "worker"),
            "ports": [_port("gang", GANG_PORT), _port("http", HTTP_PORT)],
        },
    }


def _store_service(job: RolloutJob, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, uid, store_name(job), "shared"),
        "spec": {
            "type": "ClusterIP",
            # Who waits for Redis asks again and again: no probe is to stand between its first answer and them.
            "publishNotReadyAddresses": True,
            "selector": selector(job, "redis"),
            "ports": [_port(REDIS, REDIS_PORT)],
        },
    }


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}


def _disruption_budget(job: RolloutJob, uid: str, desired: int) -> dict[str, Any]:
    """How many pods of workers must stay. As a number of pods, not as maxUnavailable: that one counts against the
    job's scale, which counts workers, and a gang is several pods. The first pod of a gang takes the others along."""
    pods = desired * job.spec.workers.parallelism.nodes
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(job, uid, workers_name(job), "shared"),
        "spec": {
            "minAvailable": max(0, pods - max_unavailable(job)),
            "selector": {"matchLabels": selector(job, "worker")},
            # A worker that does not work yet protects nothing.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _network_policy(job: RolloutJob, uid: str, settings: OperatorSettings) -> dict[str, Any]:
    operators = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job, uid, job.name, "shared"),
        "spec": {
            "podSelector": {"matchLabels": selector(job)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": selector(job)}}]},
                {
                    "from": [operators],
                    "ports": [{"protocol": "TCP", "port": port} for port in (REDIS_PORT, HTTP_PORT)],
                },
            ],
        },
    }


def _output(job: RolloutJob, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(job, uid, output_name(job), "shared"),
        "spec": _claim(job.spec.output.size, job.spec.output.storage_class),
    }


def _claim(size: str, storage_class: str | None) -> dict[str, Any]:
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        **({"storageClassName": storage_class} if storage_class is not None else {}),
    }
