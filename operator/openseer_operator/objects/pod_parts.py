"""Common parts of a job's pods and objects: security, volumes, resources, ports."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from openseer_core.errors import InputError
from openseer_core.manifest.job import KeyRef, Resources, RolloutJob
from openseer_core.manifest.store_url import url_reference
from openseer_operator.pod_settings import JobPodSettings

JOB_FOLDER = "/etc/openseer"
"""Mount point of the job's manifest in pods."""
NODE_LOST_SECONDS = 30
"""Time after which a pod on a node that does not answer is deleted, in seconds (Kubernetes' default is 300)."""


@dataclass(slots=True)
class Mounts:
    """The volumes of a pod, and their mount points in its container."""

    volumes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    mounts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, name: str, path: str, source: dict[str, Any] | None, *, read_only: bool = False) -> None:
        """Adds a mount and its volume. `source`: the volume's source; None if the volume is defined elsewhere."""
        if source is not None:
            self.volumes.append({"name": name, **source})
        self.mounts.append({"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})})


def base_pod_spec(job: RolloutJob, settings: JobPodSettings) -> dict[str, Any]:
    """The common spec of all pods of a job, Redis included: restricted, without a token for the Kubernetes API."""
    secrets = [{"name": secret.name} for secret in job.spec.image_pull_secrets]
    return {
        "serviceAccountName": job.name,
        "automountServiceAccountToken": False,
        # Programs would read the variables of Services (VLLM_PORT, REDIS_URL) as their settings.
        "enableServiceLinks": False,
        **({"imagePullSecrets": secrets} if secrets else {}),
        "securityContext": dict(settings.pod_security_context),
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{taint}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": NODE_LOST_SECONDS,
            }
            for taint in ("not-ready", "unreachable")
        ],
    }


def container_security() -> dict[str, Any]:
    """The securityContext of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def resource_requirements(resources: Resources) -> dict[str, Any]:
    """The field `resources` of a container; empty if the manifest sets none."""
    return resources.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def secret_variable(reference: KeyRef) -> dict[str, Any]:
    """The `valueFrom` of an environment variable whose value is in a Secret."""
    return {"secretKeyRef": {"name": reference.name, "key": reference.key}}


def store_variable(job: RolloutJob, secret: str) -> dict[str, Any]:
    """The environment variable with the URL of the job's store. `secret`: name of the Secret of a managed Redis."""
    reference = url_reference(job, secret)
    value = {"value": job.spec.store.url} if reference is None else {"valueFrom": secret_variable(reference)}
    return {"name": "OPENSEER_STORE_URL", **value}


def log_variables(settings: JobPodSettings) -> list[dict[str, Any]]:
    """The environment variables of the log format. Empty for the default format, so that the manifests equal those of
    releases without this setting."""
    return [] if settings.log_format == "text" else [{"name": "OPENSEER_LOG", "value": settings.log_format}]


def inside(root: str, path: str, field_name: str) -> str:
    """A path on a volume as a path in the pod. `root`: the mount point. Raises InputError for a path that leaves the
    volume."""
    parts = PurePosixPath("/" + path).parts[1:]
    if ".." in parts:
        raise InputError(f"{field_name}: found {path!r}, allowed: a path on the volume, without ..")
    return str(PurePosixPath(root, *parts))


def probe(path: str, period: int, failures: int, timeout: int) -> dict[str, Any]:
    """A probe of the container's port `http`; times in seconds."""
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def service_port(name: str, number: int) -> dict[str, Any]:
    """A port of a Service; its pods use the same number."""
    return {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}


def volume_claim_spec(size: str, storage_class: str | None) -> dict[str, Any]:
    """The spec of a PersistentVolumeClaim that one node mounts at a time."""
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        **({"storageClassName": storage_class} if storage_class is not None else {}),
    }
