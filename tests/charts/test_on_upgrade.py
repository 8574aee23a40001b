"""An upgrade of the chart keeps the keys in the cluster, and the right to read passwords of older jobs."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import store_name
from tests.charts.rendering import CHART, HELM, KUBERNETES, helm
from tests.operator.control_plane import ControlPlane, programs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh"),
]
JOBS = "/apis/openseer.dev/v1alpha1/namespaces/lab/rolloutjobs"
LONG = "j" * 49
BEGUN = {"image": "worker:1"}
STORES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "older": ({}, BEGUN),
    LONG: ({}, BEGUN),
    "kept": ({}, {**BEGUN, "storeSecret": "kept-redis"}),
    "newer": ({}, {**BEGUN, "storeSecret": "newer-redis-0123456789"}),
    "over": ({}, {**BEGUN, "completionTime": "2026-01-01T00:00:00Z"}),
    "just-made": ({}, {}),
    "own-url": ({"url": "redis://mine.lab.svc"}, BEGUN),
    "own-secret": ({"secretRef": {"name": "mine", "key": "url"}}, BEGUN),
}
"""spec.store and status of the jobs that an upgrade finds, by name."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = programs()
    if found is None:
        pytest.skip("no etcd and kube-apiserver: make cluster-tools builds them; or set KUBEBUILDER_ASSETS")
    with ControlPlane(tmp_path_factory.mktemp("api"), found) as plane:
        plane.make_namespace("system")
        plane.make_namespace("lab")
        for name, (store, status) in STORES.items():
            plane.request(JOBS, json.dumps(document(name, store)).encode())
            body = json.dumps({"status": status}).encode()
            plane.request(f"{JOBS}/{name}/status", body, "PATCH", "application/merge-patch+json")
        yield plane


def document(name: str, store: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name, "namespace": "lab"},
        "spec": {"mode": "serve", "model": {"path": "m"}, "store": store},
    }


def job(name: str) -> RolloutJob:
    return parse_job(document(name, {}), "job.yaml")


def rendered(plane: ControlPlane, **values: Any) -> list[dict[str, Any]]:
    where = ("--namespace", "system", "--kubeconfig", str(plane.kubeconfig), "--dry-run=server")
    server = ("--kube-version", KUBERNETES, "--api-versions", "openseer.dev/v1alpha1")
    done = helm("template", "rel", str(CHART), *where, *server, values=values)
    assert done.returncode == 0, done.stderr
    return [entry for entry in yaml.safe_load_all(done.stdout) if entry]


def on_secrets(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rules on Secrets, by kind, namespace and name of their role."""
    return {
        f"{entry['kind']} {entry['metadata'].get('namespace', '')}/{entry['metadata']['name']}": rule
        for entry in objects
        if entry["kind"] in ("Role", "ClusterRole")
        for rule in entry["rules"]
        if "secrets" in rule["resources"]
    }


def test_only_secrets_of_jobs_from_before_keys_may_be_read(plane: ControlPlane) -> None:
    objects = rendered(plane)
    found = on_secrets(objects)
    assert found.pop("ClusterRole /rel-openseer")["verbs"] == ["create"]
    older = [store_name(job(name)) for name in ("older", LONG, "kept")]
    assert {name: (rule["resourceNames"], rule["verbs"]) for name, rule in found.items()} == {
        f"Role lab/rel-openseer-{secret}": ([secret], ["get"]) for secret in older
    }
    for secret in older:
        (binding,) = [
            entry
            for entry in objects
            if (entry["kind"], entry["metadata"]["name"]) == ("RoleBinding", f"rel-openseer-{secret}")
        ]
        assert binding["roleRef"]["name"] == f"rel-openseer-{secret}"
        assert [subject["name"] for subject in binding["subjects"]] == ["rel-openseer", "rel-openseer-api"]


def test_namespaces_that_are_not_watched_get_no_right(plane: ControlPlane) -> None:
    assert set(on_secrets(rendered(plane, watchNamespaces=["prod"]))) == {"Role prod/rel-openseer"}


def test_an_upgrade_makes_missing_keys_and_changes_no_existing_ones(plane: ControlPlane) -> None:
    def keys() -> list[dict[str, bytes]]:
        found = [entry["data"] for entry in rendered(plane) if entry["kind"] == "Secret"]
        return [{name: base64.b64decode(value) for name, value in data.items()} for data in found]

    (first,), (second,) = keys(), keys()
    assert [*first, *second] == ["1", "1"]
    assert first != second, "keys are random"
    assert len(first["1"]) == 64
    there = {"metadata": {"name": "rel-openseer-store-keys"}, "stringData": {"1": "o" * 64}}
    plane.request("/api/v1/namespaces/system/secrets", json.dumps(there).encode())
    assert keys() == []


def test_a_rollback_keeps_the_key_that_was_added_since(plane: ControlPlane) -> None:
    plane.make_namespace("rotated")
    where = ("--namespace", "rotated", "--kubeconfig", str(plane.kubeconfig))
    path = "/api/v1/namespaces/rotated/secrets/openseer-store-keys"

    def do(*words: str) -> None:
        values = {"crds": {"install": False}} if words[0] in ("install", "upgrade") else None
        done = helm(*words, *where, values=values)
        assert done.returncode == 0, done.stderr

    def keys() -> dict[str, str]:
        return json.loads(plane.request(path))["data"]

    do("install", "openseer", str(CHART))
    first = keys()
    assert [*first] == ["1"]
    new = json.dumps({"stringData": {"2": "n" * 64}}).encode()
    plane.request(path, new, "PATCH", "application/merge-patch+json")
    do("upgrade", "openseer", str(CHART))
    do("rollback", "openseer", "1")
    found = keys()
    assert (found["1"], [*found]) == (first["1"], ["1", "2"])
    do("uninstall", "openseer")
    assert keys() == found


def test_a_secret_of_the_admin_replaces_the_charts(plane: ControlPlane, tmp_path: Path) -> None:
    objects = rendered(plane, stores={"keysSecret": "mine"})
    assert not [entry for entry in objects if entry["kind"] == "Secret"]
    for entry in objects:
        if entry["kind"] == "Deployment":
            volumes = {each["name"]: each for each in entry["spec"]["template"]["spec"]["volumes"]}
            assert volumes["store-keys"]["secret"]["secretName"] == "mine"
