"""The health check for Flux in docs/gitops, evaluated by an API server: it is written in the same language (CEL)."""

import json
import re
import time
import urllib.error
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.operator.control_plane import ControlPlane
from tests.operator.objects.test_waiting import GENERATION, states
from tests.repository import ROOT

pytestmark = [pytest.mark.cluster]

POLICY_SECONDS = 120.0
"""Longest wait for a new policy to be looked at."""
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
EXPECTED = {
    **dict.fromkeys(("complete", "suspended", "suspending", "released"), "Current"),
    **dict.fromkeys(("failed", "refused"), "Failed"),
}
"""Of the other states: it waits, for a batch job is not complete."""


class Judge:
    """A policy that refuses every status in a namespace; its message is the health check's result."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane, self._namespace = plane, namespace
        documents = yaml.safe_load((ROOT / "docs/gitops/flux.yaml").read_text(encoding="utf-8"))
        (check,) = documents["spec"]["healthCheckExprs"]
        assert (check["apiVersion"], check["kind"]) == ("openseer.dev/v1alpha1", "RolloutJob")
        # Flux's expressions name the object's parts, an admission policy names the object first.
        parts = {
            name: re.sub(r"(?<![\w.'])(status|spec|metadata)\b", r"object.\1", check[name])
            for name in ("inProgress", "failed", "current")
        }
        verdict = (
            "'verdict ' + ({inProgress} ? 'InProgress' : {failed} ? 'Failed' : {current} ? 'Current' : 'InProgress')"
        )
        self._make("validatingadmissionpolicies", _policy(namespace, verdict.format(**parts)))
        self._make("validatingadmissionpolicybindings", _binding(namespace))
        for mode in ("batch", "serve"):
            prompts = {"prompts": {"path": "p"}} if mode == "batch" else {}
            spec = {"mode": mode, "model": {"path": "m"}, **prompts}
            job = {
                "apiVersion": "openseer.dev/v1alpha1",
                "kind": "RolloutJob",
                "metadata": {"name": mode},
                "spec": spec,
            }
            plane.request(f"{self._jobs}", json.dumps(job).encode(), content="application/json")

    @property
    def _jobs(self) -> str:
        return f"/apis/openseer.dev/v1alpha1/namespaces/{self._namespace}/rolloutjobs"

    def _make(self, plural: str, body: Mapping[str, Any]) -> None:
        self._plane.request(f"{ADMISSION}/{plural}", json.dumps(body).encode(), content="application/json")

    def verdict(self, mode: str, status: Mapping[str, Any]) -> str:
        """InProgress, Failed or Current."""
        # The job's own generation is 1.
        seen = max(-1, status["observedGeneration"] - GENERATION + 1)
        told = {"conditions": None, **status, "observedGeneration": seen}
        end = time.monotonic() + POLICY_SECONDS
        while time.monotonic() < end:
            try:
                patch = json.dumps({"status": told}).encode()
                self._plane.request(f"{self._jobs}/{mode}/status", patch, "PATCH", "application/merge-patch+json")
            except urllib.error.HTTPError as error:
                message = error.read().decode()
                found = re.search(r"verdict (\w+)", message)
                assert found is not None, message
                return found[1]
            time.sleep(0.1)
        raise AssertionError("the policy is not looked at")


def _policy(namespace: str, verdict: str) -> dict[str, Any]:
    rule = {
        "apiGroups": ["openseer.dev"],
        "apiVersions": ["*"],
        "operations": ["*"],
        "resources": ["rolloutjobs/status"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "messageExpression": verdict}],
        },
    }


def _binding(namespace: str) -> dict[str, Any]:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": selector},
        },
    }


def test_the_health_check_for_flux_waits_for_results(control_plane: ControlPlane, namespace: str) -> None:
    judge = Judge(control_plane, namespace)
    told = {
        state: judge.verdict("serve" if state == "released" else "batch", status)
        for state, (status, *_) in states().items()
    }
    assert told == {state: EXPECTED.get(state, "InProgress") for state in states()}
