"""The Redis that the operator runs for a job: its StatefulSet and its Secret."""

from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_operator.objects.managed_redis import data_claims, store_secret, store_stateful_set
from openseer_operator.settings import OperatorSettings
from tests.operator.tenant import store_pod

SETTINGS = OperatorSettings(namespace="openseer", worker_image="openseer-worker:1", store_image="openseer-operator:1")
UID = "11111111-2222-3333-4444-555555555555"
SECRET = "arithmetic-redis-0123456789"


def job(**spec: Any) -> RolloutJob:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "arithmetic", "namespace": "lab", "labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {"model": {"path": "models/tiny"}, "prompts": {"path": "prompts.jsonl"}, **spec},
    }
    return parse_job(document, "job.yaml")


def redis(rollout_job: RolloutJob) -> dict[str, Any]:
    return store_stateful_set(rollout_job, UID, SETTINGS, 1, secret=SECRET)


def container(rollout_job: RolloutJob) -> dict[str, Any]:
    return redis(rollout_job)["spec"]["template"]["spec"]["containers"][0]


def template_of(manifest: dict[str, Any]) -> str:
    return manifest["metadata"]["annotations"]["openseer.dev/template"]


def test_the_password_is_only_in_the_secret_and_not_in_the_hash() -> None:
    secret = store_secret(job(), UID, SECRET, "sesame")
    assert secret["stringData"] == {
        "password": "sesame",
        "url": "redis://:sesame@arithmetic-redis.lab.svc:6379/0",
        "redis.conf": "requirepass sesame\n",
    }
    assert secret["immutable"] is True
    assert template_of(secret) == template_of(store_secret(job(), UID, SECRET, "other"))


def test_redis_reads_its_password_from_a_file() -> None:
    redis_container = container(job())
    assert redis_container["command"][:2] == ["redis-server", "/etc/redis/redis.conf"]
    assert not [word for word in redis_container["command"] if "pass" in word]
    volumes = {volume["name"]: volume for volume in redis(job())["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["secret"]["secretName"] == SECRET
    assert redis_container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": SECRET, "key": "password"}


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_redis_logs_every_write_and_evicts_no_key(fsync: str) -> None:
    command = container(job(store={"fsync": fsync}))["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert (options["--appendonly"], options["--appendfsync"], options["--save"]) == ("yes", fsync, "")
    assert (options["--maxmemory-policy"], options["--dir"]) == ("noeviction", "/data")


def test_redis_keeps_its_volume_while_stopped_and_loses_it_when_deleted() -> None:
    stored = job(store={"persistence": {"size": "9Gi", "storageClass": "fast"}})
    spec = store_stateful_set(stored, UID, SETTINGS, 0, secret=SECRET)["spec"]
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


def test_redis_has_default_resources_and_its_own_template() -> None:
    assert container(job())["resources"] == {"requests": {"cpu": "100m", "memory": "256Mi"}}
    other = {"spec": {"containers": [{"name": "redis", "image": "valkey:8"}]}}
    found = container(job(store={"resources": {"limits": {"memory": "8Gi"}}, "template": other}))
    assert (found["resources"], found["image"]) == ({"limits": {"memory": "8Gi"}}, "valkey:8")


def test_a_template_cannot_set_the_redis_command() -> None:
    template = {"spec": {"containers": [{"name": "redis", "command": ["redis-server"]}]}}
    with pytest.raises(InputError, match=r"spec\.store\.template\.spec\.containers\[0\]\.command: cannot be set here"):
        redis(job(store={"template": template}))


def test_redis_refuses_writes_before_the_kernel_kills_it() -> None:
    command = container(job(store={"resources": {"limits": {"memory": "4Gi"}}}))["command"]
    assert command[command.index("--maxmemory") + 1] == str(3 * 2**30)
    assert "--maxmemory" not in container(job())["command"]


def placed(**store: Any) -> dict[str, Any]:
    """The pod that the StatefulSet's controller creates."""
    found = redis(job(store=store))
    found["metadata"]["uid"] = "u"
    return store_pod(found)


def mounting(path: str, **source: Any) -> dict[str, Any]:
    """A template that mounts a user's volume at `path`."""
    container = {"name": "redis", "volumeMounts": [{"name": "mine", "mountPath": path}]}
    return {"spec": {"volumes": [{"name": "mine", **source}], "containers": [container]}}


def test_the_data_are_only_in_the_claim_of_the_stateful_set() -> None:
    assert data_claims(placed()) == {"data": "data-arithmetic-redis-0"}
    assert data_claims(placed(persistence={"medium": "ephemeral", "size": "2Gi"})) == {"data": ""}
    assert data_claims(placed(template=mounting("/database", emptyDir={}))) == {"data": "data-arithmetic-redis-0"}


def test_volumes_mounted_over_the_data_folder_are_known() -> None:
    shared = {"persistentVolumeClaim": {"claimName": "shared-nfs"}}
    assert data_claims(placed(template=mounting("/data", **shared))) == {"mine": "shared-nfs"}
    for path in ("/data/appendonlydir", "//data", "/data/", "/data/./x"):
        both = {"data": "data-arithmetic-redis-0", "mine": "shared-nfs"}
        assert data_claims(placed(template=mounting(path, **shared))) == both, path
    assert data_claims(placed(template=mounting("/data", emptyDir={}))) == {"mine": ""}
