"""Workers and driver see the volume for rows of routed experts, in a folder of the job's own."""

from typing import Any

import pytest

from openseer_core.errors import InputError
from tests.operator.objects.test_pods import driver, flag, job, volume, worker

PVC = {"claimName": "fast", "path": "team/rows"}


def routing(**capture: Any) -> dict[str, Any]:
    return {"capture": capture}


def test_workers_and_driver_mount_the_volume_for_rows() -> None:
    captured = job(routing=routing(pvc=PVC))
    for pod in (worker(captured), driver(captured)):
        assert flag(pod, "--routed") == f"/rows/team/rows/{captured.namespace}.{captured.name}"
        assert volume(pod, "/rows") == {"persistentVolumeClaim": {"claimName": "fast"}, "ro": False}
    for pod in (worker(job()), driver(job())):
        assert flag(pod, "--routed") is None
        assert "rows" not in {entry["name"] for entry in pod["spec"]["volumes"]}


def test_a_capture_that_a_cluster_cannot_give_is_refused() -> None:
    for pod in (worker, driver):
        with pytest.raises(InputError, match=r"spec\.routing\.capture\.pvc: missing; in a cluster"):
            pod(job(routing=routing(path="/rows")))
    with pytest.raises(InputError, match=r"spec\.routing\.capture\.pvc\.path: found .*, allowed: a path on the volume"):
        worker(job(routing=routing(pvc=PVC | {"path": "../rows"})))
    with pytest.raises(InputError, match=r"spec\.routing\.capture: found in mode serve, allowed in a cluster: batch"):
        worker(job(routing=routing(pvc=PVC), mode="serve", prompts=None))
