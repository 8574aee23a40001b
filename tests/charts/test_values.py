"""Values of the chart: a wrong one is refused by its name before any object reaches a cluster."""

import json
from typing import Any

import pytest

from tests.charts.rendering import CHART, HELM, template

pytestmark = pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"api": {"audiences": ["a,b"]}}, "audiences"),
    ({"api": {"ingress": {"enabled": True}}}, "api.ingress.host: missing; name the host"),
    ({"api": {"serviceAccount": {"create": False}}}, "api.serviceAccount.name: name the account to use"),
    ({"workerImage": {"digest": "0123"}}, "workerImage"),
    ({"replica": 3}, "replica"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"watchNamespaces": "lab"}, "watchNamespaces"),
    ({"jobNetworkPolicies": False}, "jobNetworkPolicies"),
    ({"stores": {"allowedHosts": ["a,b"]}}, "allowedHosts"),
    ({"stores": {"allowedHosts": ["cache.example:6379"]}}, "allowedHosts"),
    ({"stores": {"allowedHosts": ["rediss://cache.example"]}}, "allowedHosts"),
    ({"stores": {"allowedHosts": ["Cache.example"]}}, "allowedHosts"),
    ({"stores": {"allowedHosts": ["cache.example."]}}, "allowedHosts"),
    ({"image": {"repository": "registry.example/op:1.0"}}, "image/repository"),
    ({"redisImage": {"repository": "valkey@sha256:0"}}, "redisImage/repository"),
    ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "app.kubernetes.io/name"),
    ({"metrics": {"serviceMonitor": {"labels": {"helm.sh/chart": "mine"}}}}, "helm.sh/chart"),
    ({"podAnnotations": {"kubectl.kubernetes.io/default-container": "mine"}}, "default-container"),
    ({"jobs": {"env": [{"name": "A", "value": 5}]}}, "/jobs/env/0/value"),
    ({"api": {"env": [{"name": "A", "valeu": "b"}]}}, "valeu"),
    ({"jobs": {"podSecurityContext": {"runAsUsr": 1}}}, "runAsUsr"),
    ({"podSecurityContext": {"runAsUsr": 1}}, "runAsUsr"),
    ({"networkPolicy": {"apiFrom": [{"namespaceSelectr": {}}]}}, "namespaceSelectr"),
    ({"jobNetworkPolicies": {"metricsFrom": [{"podSelector": {"app": "a"}}]}}, "additional properties 'app'"),
    ({"jobNetworkPolicies": {"egress": {"allow": [{"too": [{}]}]}}}, "'too' not allowed"),
    ({"jobNetworkPolicies": {"egress": {"allow": [{}]}}}, "/jobNetworkPolicies/egress/allow/0"),
    ({"jobNetworkPolicies": {"egress": {"allow": [{"to": []}]}}}, "/jobNetworkPolicies/egress/allow/0/to"),
    (
        {"redisImage": {"repository": "valkey"}},
        "redisImage.tag: missing; name the tag of redisImage.repository, or its digest",
    ),
    ({"logs": {"format": "xml"}}, "/logs/format"),
    ({"traces": {"endpoint": "collector:4318"}}, "/traces/endpoint"),
    ({"traces": {"env": [{"name": "A", "value": 5}]}}, "/traces/env/0/value"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name: name the account to use"),
    (
        {"metrics": {"service": False, "serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.enabled: needs metrics.service",
    ),
]


def refusal(values: dict[str, Any]) -> str:
    done = template(values)
    assert done.returncode != 0, "the chart was rendered"
    return done.stderr


@pytest.mark.parametrize(("values", "expected"), WRONG)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], expected: str) -> None:
    assert expected in refusal(values)


def test_common_values_are_accepted() -> None:
    values = {
        "image": {"repository": "registry.example:5000/openseer/operator"},
        "stores": {"allowedHosts": ["cache", "*.pool.example", "10.0.0.1", "10.0.0.0/8", "fd00::/8", "::1"]},
        "jobs": {"podSecurityContext": {"supplementalGroups": [5], "seLinuxOptions": {"level": "s0"}}},
        "api": {"env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]},
        "networkPolicy": {"apiFrom": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
        "jobNetworkPolicies": {"egress": {"allow": [{"ports": [{"port": 443, "protocol": "TCP", "endPort": 444}]}]}},
    }
    done = template(values)
    assert done.returncode == 0, done.stderr


def test_values_that_an_older_chart_lacks_are_reported_by_name() -> None:
    """With --reuse-values, values that the chart reads are missing."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    parts = {name for name, below in schema["properties"].items() if "properties" in below}
    assert {"stores", "jobs", "caBundle", "jobNetworkPolicies"} <= parts == {*schema["required"], "podSecurityContext"}
    assert "missing property 'stores'" in refusal({"stores": None})
    assert "missing property 'probes'" in refusal({"jobs": {"probes": None}})
