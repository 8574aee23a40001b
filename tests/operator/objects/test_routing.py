"""Workers and driver mount the volume for rows of routed experts; in a serving job a separate pod serves the rows."""

from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_operator.objects.shared import shared_objects
from tests.operator.objects.test_pods import SETTINGS, UID, driver, environment, flag, job, main, volume, worker

PVC = {"claimName": "fast", "path": "team/rows"}


def routing(**capture: Any) -> dict[str, Any]:
    return {"capture": capture}


def test_workers_and_driver_mount_the_volume_for_rows() -> None:
    captured = job(routing=routing(pvc=PVC))
    for pod in (worker(captured), driver(captured)):
        assert flag(pod, "--routed") == f"/rows/team/rows/{captured.namespace}.{captured.name}.{UID}"
        assert volume(pod, "/rows") == {"persistentVolumeClaim": {"claimName": "fast"}, "ro": False}
    for pod in (worker(job()), driver(job())):
        assert flag(pod, "--routed") is None
        assert "rows" not in {entry["name"] for entry in pod["spec"]["volumes"]}


def test_an_invalid_capture_for_a_cluster_is_refused() -> None:
    for pod in (worker, driver):
        with pytest.raises(InputError, match=r"spec\.routing\.capture\.pvc: missing; in a cluster"):
            pod(job(routing=routing(path="/rows")))
    with pytest.raises(InputError, match=r"spec\.routing\.capture\.pvc\.path: found .*, allowed: a path on the volume"):
        worker(job(routing=routing(pvc=PVC | {"path": "../rows"})))
    with pytest.raises(InputError, match=r"spec\.routing\.capture\.pvc: missing; in a cluster"):
        shared(serving(path="/rows"))


def serving(**capture: Any) -> RolloutJob:
    return job(routing=routing(**capture), mode="serve", prompts=None)


def shared(rollout_job: RolloutJob, *, runs: bool = True) -> dict[str, dict[str, Any]]:
    return shared_objects(rollout_job, UID, SETTINGS, 1, secret="arithmetic-redis", runs=runs)


def test_a_serving_job_has_a_pod_that_reads_its_workers_rows() -> None:
    captured = serving(pvc=PVC)
    made = shared(captured)
    pod = made["rows"]["spec"]["template"]
    assert flag(pod, "--routed") == flag(worker(captured), "--routed")
    assert volume(pod, "/rows") == volume(worker(captured), "/rows")
    assert environment(pod)["OPENSEER_STORE_URL"] == environment(worker(captured))["OPENSEER_STORE_URL"]
    assert main(pod)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made["rowsService"]["metadata"]["name"] == "arithmetic-rows"
    assert made["rowsService"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert shared(captured, runs=False)["rows"]["spec"]["replicas"] == 0
    for without in (job(routing=routing(pvc=PVC)), job(mode="serve", prompts=None)):
        assert not {"rows", "rowsService"} & shared(without).keys()
