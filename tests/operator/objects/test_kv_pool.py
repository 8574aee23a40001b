"""Workers see the volume of the KV pool, and nobody else does."""

import pytest

from openseer_core.errors import InputError
from tests.operator.objects.test_pods import driver, flag, job, volume, worker


def test_workers_mount_the_volume_of_the_kv_pool_and_the_driver_does_not() -> None:
    rollout_job = job(kvPool={"backend": "shared-directory", "pvc": {"claimName": "fast", "path": "team/kv"}})
    pod = worker(rollout_job)
    assert flag(pod, "--kv-pool") == "/kv-pool/team/kv"
    assert volume(pod, "/kv-pool") == {"persistentVolumeClaim": {"claimName": "fast"}, "ro": False}
    assert "kv-pool" not in {entry["name"] for entry in driver(rollout_job)["spec"]["volumes"]}
    for without in (job(), job(kvPool={"backend": "shared-directory", "path": "/mnt/kv"})):
        assert flag(worker(without), "--kv-pool") is None
        assert "kv-pool" not in {entry["name"] for entry in worker(without)["spec"]["volumes"]}


def test_the_kv_pool_does_not_leave_its_volume() -> None:
    pool = {"backend": "shared-directory", "pvc": {"claimName": "c", "path": "../kv"}}
    with pytest.raises(InputError, match=r"spec\.kvPool\.pvc\.path: found .*, allowed: a path on the volume"):
        worker(job(kvPool=pool))
