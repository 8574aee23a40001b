"""What pods stand on: services, policies, volumes, and the Redis that the operator runs."""

import json
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_operator.objects.shared import shared_objects, store_secret, store_set
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


def shared(one: RolloutJob, **settings: Any) -> dict[str, dict[str, Any]]:
    return shared_objects(
        one, UID, OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1", **settings)
    )


def redis(one: RolloutJob) -> dict[str, Any]:
    return store_set(one, UID, SETTINGS, 1)


def container(one: RolloutJob) -> dict[str, Any]:
    return redis(one)["spec"]["template"]["spec"]["containers"][0]


def template_of(manifest: dict[str, Any]) -> str:
    return manifest["metadata"]["annotations"]["openseer.dev/template"]


def test_a_job_has_what_it_needs_and_no_more() -> None:
    assert shared(job()).keys() == ALWAYS | {"networkPolicy", "output", "storeService"}
    assert shared(job(), network_policies=False).keys() == ALWAYS | {"output", "storeService"}
    own = job(store={"url": "redis://r:6379"}, output={"pvc": {"claimName": "c", "path": "p"}})
    assert shared(own).keys() == ALWAYS | {"networkPolicy"}
    assert "output" not in shared(job(mode="serve", prompts=None))


def test_every_object_goes_with_its_job_and_says_what_it_was_made_from() -> None:
    for manifest in (*shared(job()).values(), redis(job()), store_secret(job(), UID, "word")):
        head = manifest["metadata"]
        assert [owner["uid"] for owner in head["ownerReferences"]] == [UID]
        assert (head["namespace"], head["labels"]["openseer.dev/job"]) == ("lab", "arithmetic")
        assert template_of(manifest)


def test_an_object_is_out_of_date_only_when_it_would_be_another() -> None:
    def hashes(**spec: Any) -> dict[str, str]:
        return {key: template_of(manifest) for key, manifest in shared(job(**spec)).items()}

    before, after = hashes(), hashes(workers={"replicas": 4})
    assert before == hashes()
    assert {key for key in before if before[key] != after[key]} == {"config", "disruptionBudget"}


def test_the_config_is_the_job_itself_without_its_annotations() -> None:
    one = job(workers={"replicas": 2}, sampling={"stop": ["\n\n"]})
    found = parse_job(json.loads(shared(one)["config"]["data"]["job.json"]), "job.json")
    assert found.spec == one.spec
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
def test_the_budget_lets_as_many_workers_go_as_may_be_unavailable(workers: dict[str, Any], least: int) -> None:
    spec = shared(job(workers=workers))["disruptionBudget"]["spec"]
    assert (spec["minAvailable"], spec["unhealthyPodEvictionPolicy"]) == (least, "AlwaysAllow")


def test_the_disruption_budget_follows_the_workers_wanted_so_that_a_tail_can_be_drained() -> None:
    settings = OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1")
    objects = shared_objects(job(workers={"replicas": 6}), UID, settings, 2)
    assert objects["disruptionBudget"]["spec"]["minAvailable"] == 1


def test_only_the_job_itself_and_the_operator_reach_its_pods() -> None:
    spec = shared(job())["networkPolicy"]["spec"]
    mine = {"matchLabels": {"openseer.dev/job": "arithmetic"}}
    assert (spec["podSelector"], spec["policyTypes"]) == (mine, ["Ingress"])
    inside, operator = spec["ingress"]
    assert inside == {"from": [{"podSelector": mine}]}
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openseer"}}}
    assert operator["from"] == [namespace]
    assert [port["port"] for port in operator["ports"]] == [6379, 8080]


def test_results_have_a_volume_of_the_asked_size_and_class() -> None:
    plain = shared(job())["output"]["spec"]
    assert plain == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    asked = shared(job(output={"size": "5Gi", "storageClass": "fast"}))["output"]["spec"]
    assert (asked["resources"]["requests"]["storage"], asked["storageClassName"]) == ("5Gi", "fast")


def test_the_password_is_in_the_secret_alone_and_the_hash_does_not_depend_on_it() -> None:
    secret = store_secret(job(), UID, "sesame")
    assert secret["stringData"] == {
        "password": "sesame",
        "url": "redis://:sesame@arithmetic-redis.lab.svc:6379/0",
        "redis.conf": "requirepass sesame\n",
    }
    assert secret["immutable"] is True
    assert template_of(secret) == template_of(store_secret(job(), UID, "other"))


def test_redis_reads_its_password_from_a_file() -> None:
    one = container(job())
    assert one["command"][:2] == ["redis-server", "/etc/redis/redis.conf"]
    assert not [word for word in one["command"] if "pass" in word]
    volumes = {volume["name"]: volume for volume in redis(job())["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["secret"]["secretName"] == "arithmetic-redis"


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_redis_logs_every_write_and_drops_nothing(fsync: str) -> None:
    command = container(job(store={"fsync": fsync}))["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert (options["--appendonly"], options["--appendfsync"], options["--save"]) == ("yes", fsync, "")
    assert (options["--maxmemory-policy"], options["--dir"]) == ("noeviction", "/data")


def test_redis_keeps_its_volume_while_it_is_stopped_and_loses_it_when_it_is_deleted() -> None:
    spec = store_set(job(store={"persistence": {"size": "9Gi", "storageClass": "fast"}}), UID, SETTINGS, 0)["spec"]
    assert (spec["replicas"], spec["updateStrategy"]) == (0, {"type": "OnDelete"})
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    (claim,) = spec["volumeClaimTemplates"]
    assert (claim["metadata"]["name"], claim["spec"]["storageClassName"]) == ("data", "fast")
    assert claim["spec"]["resources"]["requests"]["storage"] == "9Gi"
    assert "data" not in {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_an_ephemeral_redis_has_no_claim() -> None:
    spec = redis(job(store={"persistence": {"medium": "ephemeral", "size": "2Gi"}}))["spec"]
    assert "volumeClaimTemplates" not in spec
    assert {"name": "data", "emptyDir": {"sizeLimit": "2Gi"}} in spec["template"]["spec"]["volumes"]


def test_redis_is_restricted_and_never_evicted() -> None:
    template = redis(job())["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container(job())["securityContext"]["readOnlyRootFilesystem"] is True
    # A StatefulSet restarts its pods itself.
    assert "restartPolicy" not in template["spec"]


def test_redis_has_modest_resources_until_others_are_asked_for_and_its_own_template() -> None:
    assert container(job())["resources"] == {"requests": {"cpu": "100m", "memory": "256Mi"}}
    other = {"spec": {"containers": [{"name": "redis", "image": "valkey:8"}]}}
    found = container(job(store={"resources": {"limits": {"memory": "8Gi"}}, "template": other}))
    assert (found["resources"], found["image"]) == ({"limits": {"memory": "8Gi"}}, "valkey:8")


def test_redis_command_is_not_the_templates_to_set() -> None:
    template = {"spec": {"containers": [{"name": "redis", "command": ["redis-server"]}]}}
    with pytest.raises(InputError, match=r"spec\.store\.template\.spec\.containers\[0\]\.command: cannot be set here"):
        redis(job(store={"template": template}))
