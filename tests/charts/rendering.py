"""Renders the chart for the tests: the programs that this needs, and the variants of its values."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.repository import ROOT

CHART = ROOT / "charts" / "openseer"
KUBERNETES = "1.36.3"
"""The version that templates are rendered for; a helm built from source has no default."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "namespaced": {"watchNamespaces": ["lab", "prod"]},
    "gone with the chart": {"crds": {"keep": False}, "podLabels": {"team": "a"}, "podAnnotations": {"seen": "yes"}},
    "everything on": {
        "nodeRepair": {"condition": "AcceleratedHardwareReady"},
        "jobNetworkPolicies": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": {"restricted": True, "allow": [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]},
        },
        "stores": {"allowedHosts": ["cache.example", "*.pool.example", "10.20.0.0/16"]},
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "podMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True},
            "alerts": {"enabled": True, "labels": {"release": "prometheus"}, "runbooks": "https://wiki.example/runs"},
        },
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}], "apiFrom": [{"podSelector": {}}]},
        "api": {
            "audiences": ["openseer", "other"],
            "service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}},
            "ingress": {"enabled": True, "className": "nginx", "host": "api.example", "tlsSecret": "cert"},
            "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        },
        "jobs": {
            "inheritLabels": ["team", "example.com/*"],
            "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "startSeconds": 7200,
            "probes": {"livenessFailures": 12},
        },
        "caBundle": {"configMap": "trust"},
        "logs": {"format": "json"},
        "traces": {
            "endpoint": "http://collector:4318",
            "env": [{"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"}],
        },
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
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
        "stores": {"keysSecret": "mine"},
    },
}


def program(name: str) -> str | None:
    """The path of a program, on PATH or among the programs of cluster/build.sh; None if it is missing."""
    found = shutil.which(name)
    if found:
        return found
    folder = Path(os.environ.get("OPENSEER_CACHE", Path.home() / ".cache" / "openseer")) / "programs"
    return next((str(path) for path in sorted(folder.glob(f"*/{name}"), reverse=True)), None)


HELM = program("helm")


def helm(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run(
        [HELM, *arguments, *(() if values is None else ("--values", "-"))],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # it usually takes 1 s
    )


def template(values: dict[str, Any] | None = None, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    return helm(*("template", "rel", str(chart), "--namespace", "system", "--kube-version", KUBERNETES), values=values)
