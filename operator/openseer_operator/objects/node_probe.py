"""The pod with which the operator probes the GPUs of one node, and the result of the probe."""

import hashlib
from collections.abc import Mapping
from typing import Any

from openseer_core.errors import GpuSickError
from openseer_operator.objects.names import APP, MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from openseer_operator.objects.pod_parts import container_security, log_variables
from openseer_operator.objects.status_parts import entries, part
from openseer_operator.settings import OperatorSettings

PROBE = "probe"
PROBE_SECONDS = 120
"""Timeout of a probe, in seconds; it includes the pull of the image on a slow node."""


def probe_name(node: str) -> str:
    """Name of a node's probe. All probes of a node have the same name, so that a node has one at a time."""
    return f"{APP}-probe-{hashlib.sha256(node.encode()).hexdigest()[:16]}"


def probe_pod(node: str, settings: OperatorSettings) -> dict[str, Any]:
    """The pod. It runs in the operator's namespace with the chart's worker image, so that no tenant controls it. It
    requests no GPU, because all may be in use: the container runtime gives it access to the node's GPUs."""
    container = {
        "name": PROBE,
        "image": settings.worker_image,
        **({"imagePullPolicy": settings.pull_policy} if settings.pull_policy else {}),
        "command": ["python", "-m", "openseer_worker.hardware.probe"],
        "env": [
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
            {"name": "OPENSEER_TERMINATION_LOG", "value": "/dev/termination-log"},
            *log_variables(settings.pods),
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": probe_name(node),
            "namespace": settings.namespace,
            "labels": {NAME_LABEL: f"{APP}-{PROBE}", MANAGED_BY_LABEL: MANAGER},
        },
        "spec": {
            # The pod bypasses the scheduler, so that cordoned and full nodes are probed, too.
            "nodeName": node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": PROBE_SECONDS,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **({"imagePullSecrets": list(settings.pull_secrets)} if settings.pull_secrets else {}),
            **({"runtimeClassName": settings.probe_runtime_class} if settings.probe_runtime_class else {}),
            "securityContext": dict(settings.pods.pod_security_context),
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def finding_of(raw: Mapping[str, Any]) -> tuple[bool | None, str] | None:
    """Whether the node's GPUs are healthy (None if unknown), and the probe's message; None while the probe runs."""
    status: Mapping[str, Any] = raw.get("status") or {}
    phase = status.get("phase")
    if phase not in ("Succeeded", "Failed"):
        return None
    states = [part(container, "state") for container in entries(status, "containerStatuses")]
    nothing: Mapping[str, Any] = {}
    ended = next((part(state, "terminated") for state in states if state.get("terminated")), nothing)
    message = str(ended.get("message") or status.get("message") or status.get("reason") or "").strip()
    code = ended.get("exitCode")
    if code == GpuSickError.exit_code:
        return False, message.removeprefix("error: ") or "a sick GPU"
    return (True, message or "all GPUs are healthy") if code == 0 else (None, message or f"exit code {code}")
