"""The pod that looks at the GPUs of one node for the operator, and what it found."""

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
"""A probe that says nothing for so long says nothing at all: its image is pulled, its node is slow."""


def probe_name(node: str) -> str:
    """One probe of a node at a time."""
    return f"{APP}-probe-{hashlib.sha256(node.encode()).hexdigest()[:16]}"


def probe_pod(node: str, settings: OperatorSettings) -> dict[str, Any]:
    """In the operator's namespace, from the chart's own worker image: no tenant has a hand in it. It asks for no GPU
    (all may be taken): the runtime shows it those of the node."""
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
            # Not by the scheduler: a node that is cordoned, or full, is asked too.
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
    """Whether the node's GPUs are well (None: it could not tell) and what the probe says; None while it runs."""
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
    return (True, message or "all GPUs are well") if code == 0 else (None, message or f"exit code {code}")
