"""The objects that all pods of a job need: services, policies, configuration, volumes."""

import json
from typing import Any

import pytest

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_operator.objects.managed_redis import store_secret, store_stateful_set
from openseer_operator.objects.shared import shared_objects
from openseer_operator.pod_settings import JobPodSettings
from openseer_operator.settings import OperatorSettings

SETTINGS = OperatorSettings(namespace="openseer", worker_image="openseer-worker:1", store_image="openseer-operator:1")
UID = "11111111-2222-3333-4444-555555555555"
ALWAYS = {"serviceAccount", "config", "workersService", "disruptionBudget"}


def job(**spec: Any) -> RolloutJob:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "arithmetic", "namespace": "lab", "labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {"model": {"path": "models/tiny"}, "prompts": {"path": "prompts.jsonl"}, **spec},
    }
    return parse_job(document, "job.yaml")


def shared(rollout_job: RolloutJob, **settings: Any) -> dict[str, dict[str, Any]]:
    chosen = OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1", **settings)
    return shared_objects(rollout_job, UID, chosen, rollout_job.spec.workers.replicas, secret="s")


def template_of(manifest: dict[str, Any]) -> str:
    return manifest["metadata"]["annotations"]["openseer.dev/template"]


def test_a_job_has_exactly_its_required_objects() -> None:
    assert shared(job()).keys() == ALWAYS | {"networkPolicy", "output", "storeService"}
    assert shared(job(), network_policies=False).keys() == ALWAYS | {"output", "storeService"}
    own = job(store={"url": "redis://r:6379"}, output={"pvc": {"claimName": "c", "path": "p"}})
    assert shared(own).keys() == ALWAYS | {"networkPolicy"}
    assert "output" not in shared(job(mode="serve", prompts=None))


def test_every_object_has_its_job_as_owner_and_a_hash() -> None:
    for manifest in (
        *shared(job()).values(),
        store_stateful_set(job(), UID, SETTINGS, 1, secret="s"),
        store_secret(job(), UID, "s", "word"),
    ):
        head = manifest["metadata"]
        assert [owner["uid"] for owner in head["ownerReferences"]] == [UID]
        assert (head["namespace"], head["labels"]["openseer.dev/job"]) == ("lab", "arithmetic")
        assert template_of(manifest)


def test_an_object_is_outdated_only_if_its_content_would_change() -> None:
    def hashes(**spec: Any) -> dict[str, str]:
        return {key: template_of(manifest) for key, manifest in shared(job(**spec)).items()}

    before, after = hashes(), hashes(workers={"replicas": 4})
    assert before == hashes()
    assert {key for key in before if before[key] != after[key]} == {"config", "disruptionBudget"}


def test_the_config_is_the_job_itself_without_its_annotations() -> None:
    rollout_job = job(workers={"replicas": 2}, sampling={"stop": ["\n\n"]})
    found = parse_job(json.loads(shared(rollout_job)["config"]["data"]["job.json"]), "job.json")
    assert found.spec == rollout_job.spec
    assert (found.name, found.namespace, found.metadata.labels) == ("arithmetic", "lab", {"team": "a"})
    assert found.metadata.annotations == {}


def test_the_workers_service_names_pods_before_they_are_ready() -> None:
    spec = shared(job())["workersService"]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert {port["name"]: port["port"] for port in spec["ports"]} == {"gang": 29500, "http": 8080}


@pytest.mark.parametrize(
    ("workers", "least"),
    [
        ({"replicas": 1}, 0),
        ({"replicas": 4}, 3),
        ({"replicas": 8}, 6),
        ({"replicas": 4, "maxUnavailable": 3}, 1),
        ({"replicas": 0}, 0),
        ({"replicas": 3, "parallelism": {"tensor": 2, "nodes": 2}}, 5),
    ],
)
def test_the_disruption_budget_follows_max_unavailable(workers: dict[str, Any], least: int) -> None:
    spec = shared(job(workers=workers))["disruptionBudget"]["spec"]
    assert (spec["minAvailable"], spec["unhealthyPodEvictionPolicy"]) == (least, "AlwaysAllow")


def test_the_disruption_budget_follows_the_workers_that_can_run() -> None:
    for replicas, standing, least in ((6, 2, 1), (8, 4, 2), (8, 1, 0)):
        objects = shared_objects(job(workers={"replicas": replicas}), UID, SETTINGS, standing, secret="s")
        assert objects["disruptionBudget"]["spec"]["minAvailable"] == least


def test_only_the_job_and_the_operator_reach_its_pods() -> None:
    spec = shared(job())["networkPolicy"]["spec"]
    mine = {"matchLabels": {"openseer.dev/job": "arithmetic"}}
    assert (spec["podSelector"], spec["policyTypes"]) == (mine, ["Ingress"])
    inside, operator = spec["ingress"]
    assert inside == {"from": [{"podSelector": mine}]}
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openseer"}}}
    assert operator["from"] == [namespace]
    assert [port["port"] for port in operator["ports"]] == [6379, 8080]


def test_results_have_a_volume_of_the_requested_size_and_class() -> None:
    plain = shared(job())["output"]["spec"]
    assert plain == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    asked = shared(job(output={"size": "5Gi", "storageClass": "fast"}))["output"]["spec"]
    assert (asked["resources"]["requests"]["storage"], asked["storageClassName"]) == ("5Gi", "fast")


def test_objects_get_the_configured_labels_and_annotations() -> None:
    pods = JobPodSettings(inherit_labels=("team",), inherit_annotations=("no*",))
    settings = OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1", pods=pods)
    redis = store_stateful_set(job(), UID, settings, 1, secret="s")
    claims = redis["spec"]["volumeClaimTemplates"]
    for manifest in (*shared(job(), pods=pods).values(), redis, redis["spec"]["template"], *claims):
        head = manifest["metadata"]
        assert (head["labels"]["team"], head["annotations"]["note"]) == ("a", "b")
    assert redis["spec"]["selector"] == store_stateful_set(job(), UID, SETTINGS, 1, secret="s")["spec"]["selector"]


def test_without_inherited_labels_objects_are_unchanged() -> None:
    assert "team" not in shared(job())["output"]["metadata"]["labels"]
    pods = JobPodSettings(inherit_labels=("cost",), inherit_annotations=("cost",))
    assert shared(job(), pods=pods) == shared(job())
    settings = OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1", pods=pods)
    assert store_stateful_set(job(), UID, settings, 1, secret="s") == store_stateful_set(
        job(), UID, SETTINGS, 1, secret="s"
    )
