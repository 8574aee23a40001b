"""The volume with rows of routed experts, and the pod that serves these rows to the gateway in mode serve."""

from typing import Any

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_operator.objects.names import (
    SAFE_TO_EVICT_ANNOTATION,
    config_name,
    inherit,
    labels,
    metadata,
    selector,
)
from openseer_operator.objects.pod_parts import (
    JOB_FOLDER,
    Mounts,
    base_pod_spec,
    container_security,
    inside,
    log_variables,
    probe,
    service_port,
    store_variable,
)
from openseer_operator.settings import OperatorSettings
from openseer_store.routed.asking import ROWS_PORT, rows_name

ROWS = "rows"
"""Role of the pod, and name of its container."""
_FOLDER = "/rows"
_RESOURCES = {"requests": {"cpu": "250m", "memory": "512Mi"}}
_GRACE_SECONDS = 5


def has_rows_pod(job: RolloutJob) -> bool:
    """Whether a separate pod serves the rows. In mode batch the driver reads the volume itself."""
    return job.spec.routing.capture is not None and job.spec.mode == "serve"


def add_rows(job: RolloutJob, uid: str, mounts: Mounts) -> list[str]:
    """Mounts the volume for rows of routed experts. Returns the option with this job's folder; empty without capture.

    Raises InputError for a job without a volume.
    """
    capture = job.spec.routing.capture
    if capture is None:
        return []
    if capture.pvc is None:
        raise InputError("spec.routing.capture.pvc: missing; in a cluster all pods that need rows share a volume")
    mounts.add("rows", _FOLDER, {"persistentVolumeClaim": {"claimName": capture.pvc.claim_name}})
    folder = inside(_FOLDER, capture.pvc.path, "spec.routing.capture.pvc.path")
    # The folder contains the uid, because an earlier job of this name may have left rows with the same numbers.
    return ["--routed", f"{folder}/{job.namespace}.{job.name}.{uid}"]


def rows_service(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The Service by which the gateway reaches the pod."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, uid, rows_name(job.name), "shared"),
        "spec": {"type": "ClusterIP", "selector": selector(job, ROWS), "ports": [service_port("http", ROWS_PORT)]},
    }


def rows_deployment(
    job: RolloutJob, uid: str, settings: OperatorSettings, *, secret: str, runs: bool
) -> dict[str, Any]:
    """The Deployment: one pod while the job `runs`. The pod has no state: after the loss of its node another one
    replaces it.

    `secret`: name of the managed Redis' Secret. Raises InputError for a job without a volume, and for a path that
    leaves the volume.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(job, uid, rows_name(job.name), "shared"),
        "spec": {
            "replicas": int(runs),
            "selector": {"matchLabels": selector(job, ROWS)},
            "template": _pod_template(job, uid, settings, secret),
        },
    }


def _pod_template(job: RolloutJob, uid: str, settings: OperatorSettings, secret: str) -> dict[str, Any]:
    mounts = Mounts()
    mounts.add("job", JOB_FOLDER, {"configMap": {"name": config_name(job)}}, read_only=True)
    mounts.add("tmp", "/tmp", {"emptyDir": {}})
    command = ["python", "-m", "openseer_driver.rows_pod", "--job", f"{JOB_FOLDER}/job.json"]
    command += ["--http-port", str(ROWS_PORT), *add_rows(job, uid, mounts)]
    times = settings.pods.probes
    pull_policy = job.spec.image_pull_policy or ("" if job.spec.image else settings.pull_policy)
    pod = {
        "metadata": {"labels": labels(job, ROWS), "annotations": {SAFE_TO_EVICT_ANNOTATION: "true"}},
        "spec": {
            **base_pod_spec(job, settings.pods),
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": [
                {
                    "name": ROWS,
                    "image": job.spec.image or settings.worker_image,
                    **({"imagePullPolicy": pull_policy} if pull_policy else {}),
                    "command": command,
                    "env": [
                        store_variable(job, secret),
                        {"name": "HOME", "value": "/tmp"},
                        {"name": "OPENSEER_TERMINATION_LOG", "value": "/dev/termination-log"},
                        *log_variables(settings.pods),
                    ],
                    "ports": [{"name": "http", "containerPort": ROWS_PORT, "protocol": "TCP"}],
                    "readinessProbe": probe("/readyz", times.readiness_period_seconds, 1, times.timeout_seconds),
                    "livenessProbe": probe(
                        "/healthz", times.liveness_period_seconds, times.liveness_failures, times.timeout_seconds
                    ),
                    "resources": _RESOURCES,
                    "securityContext": container_security(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": mounts.mounts,
                }
            ],
            "volumes": mounts.volumes,
        },
    }
    return inherit(pod, job, settings.pods)
