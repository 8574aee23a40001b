"""Only the workers of a job have access to its KV pool, on its volume or in its pod."""

from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_operator.objects.shared import shared_objects
from tests.operator.objects.test_pods import driver, flag, job, volume, worker
from tests.operator.objects.test_shared import SETTINGS, UID, shared


def test_workers_mount_the_volume_of_the_kv_pool_and_the_driver_does_not() -> None:
    rollout_job = job(kvPool={"backend": "shared-directory", "pvc": {"claimName": "fast", "path": "team/kv"}})
    pod = worker(rollout_job)
    assert flag(pod, "--kv-pool") == "/kv-pool/team/kv"
    assert volume(pod, "/kv-pool") == {"persistentVolumeClaim": {"claimName": "fast"}, "ro": False}
    assert "kv-pool" not in {entry["name"] for entry in driver(rollout_job)["spec"]["volumes"]}
    for without in (job(), job(kvPool={"backend": "shared-directory", "path": "/mnt/kv"})):
        assert flag(worker(without), "--kv-pool") is None
        assert "kv-pool" not in {entry["name"] for entry in worker(without)["spec"]["volumes"]}


MOONCAKE = {"backend": "mooncake", "maxGigabytes": 64}


def test_workers_get_the_service_name_of_a_pool_in_a_pod() -> None:
    rollout_job = job(kvPool=MOONCAKE)
    assert flag(worker(rollout_job), "--kv-pool") == "arithmetic-kv-pool.lab.svc:29600"
    assert flag(driver(rollout_job), "--kv-pool") is None
    made = shared(rollout_job)
    ports = made["kvPoolService"]["spec"]["ports"]
    assert [(port["name"], port["port"]) for port in ports] == [("master", 29600), ("metrics", 29601), ("store", 29602)]
    template = made["kvPool"]["spec"]["template"]
    assert made["kvPoolService"]["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert not {"kvPool", "kvPoolService"} & shared(job(kvPool={"backend": "none"})).keys()


def test_the_pod_of_the_pool_has_memory_for_its_blocks_and_is_restricted() -> None:
    [container] = shared(job(kvPool=MOONCAKE))["kvPool"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-6:] == ["--host", "$(POD_IP)", "--port", "29600", "--gigabytes", "64"]
    assert container["resources"]["limits"] == {"memory": str(69 * 2**30)}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["image"] == SETTINGS.worker_image


def test_the_pod_of_the_pool_is_built_on_a_template() -> None:
    own = {"name": "kv-pool", "resources": {"requests": {"cpu": "4"}, "limits": {"memory": "80Gi"}}}
    pod_spec: dict[str, Any] = {
        "nodeSelector": {"memory": "much"},
        "containers": [own],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": {"cost": "7"}}, "spec": pod_spec}
    made = shared(job(kvPool={**MOONCAKE, "template": template}))["kvPool"]["spec"]["template"]
    [container] = made["spec"]["containers"]
    assert made["spec"]["nodeSelector"] == {"memory": "much"}
    assert made["metadata"]["labels"]["cost"] == "7"
    memory = str(69 * 2**30)
    assert container["resources"] == {"requests": {"cpu": "4", "memory": memory}, "limits": {"memory": "80Gi"}}
    assert container["command"][0] == "python"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"containers": [{"name": "kv-pool", "resources": {"limits": {"memory": "64Gi"}}}]},
            r"spec\.kvPool\.template\..*: limits.memory of kv-pool: found 64Gi, allowed: 69Gi at least",
        ),
        (
            {"containers": [{"name": "kv-pool", "args": ["--verbose"]}]},
            r"spec\.kvPool\.template\.spec\.containers\[0\]\.args",
        ),
    ],
)
def test_a_template_cannot_remove_required_fields_of_the_pool(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        shared(job(kvPool={**MOONCAKE, "template": {"spec": spec}}))


def test_the_pool_of_a_stopped_job_has_no_pod() -> None:
    rollout_job = job(kvPool=MOONCAKE)
    sets = [shared_objects(rollout_job, UID, SETTINGS, 1, secret="s", runs=runs)["kvPool"] for runs in (True, False)]
    assert [made["spec"]["replicas"] for made in sets] == [1, 0]
    assert sets[0]["metadata"]["annotations"] != sets[1]["metadata"]["annotations"]


def test_the_path_of_a_kv_pool_cannot_leave_its_volume() -> None:
    pool = {"backend": "shared-directory", "pvc": {"claimName": "c", "path": "../kv"}}
    with pytest.raises(InputError, match=r"spec\.kvPool\.pvc\.path: found .*, allowed: a path on the volume"):
        worker(job(kvPool=pool))
