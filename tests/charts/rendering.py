"""The chart as the tests render it: the programs that they need, and the ways of installing it that they try."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.repository import ROOT

CHART = ROOT / "charts" / "openseer"
KUBERNETES = "1.36.3"
"""The version that templates are rendered for; a helm built from source knows none itself."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "namespaced": {"watchNamespaces": ["lab", "prod"]},
    "everything on": {
        "nodeRepair": {"condition": "AcceleratedHardwareReady"},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}], "apiFrom": [{"podSelector": {}}]},
        "api": {
            "audiences": ["openseer", "other"],
            "service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}},
            "ingress": {"enabled": True, "className": "nginx", "host": "api.example", "tlsSecret": "cert"},
            "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        },
        "imagePullSecrets": [{"name": "registry"}],
        "redisImage": {"repository": "valkey", "tag": "8"},
        "podLabels": {"team": "a"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"pool": "system"},
        "priorityClassName": "high",
    },
    "everything off": {
        "crds": {"install": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "metrics": {"service": False},
        "api": {"enabled": False},
    },
}


def program(name: str) -> str | None:
    """On the path, or among the programs that cluster/build.sh made."""
    found = shutil.which(name)
    if found:
        return found
    folder = Path(os.environ.get("OPENSEER_CACHE", Path.home() / ".cache" / "openseer")) / "programs"
    return next((str(path) for path in sorted(folder.glob(f"*/{name}"), reverse=True)), None)


HELM = program("helm")


def helm(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run(
        [HELM, *arguments, "--values", "-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def template(values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    return helm(*("template", "rel", str(CHART), "--namespace", "system", "--kube-version", KUBERNETES), values=values)
