"""The Secret of a managed Redis, against a real API server: created once, never read, kept for the job's lifetime."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.store_url import derived_password, derived_secret_name
from openseer_core.plan.actions import ApplyShared, CreatePod, ScaleStore
from openseer_operator.control.observe import Observer
from openseer_operator.kube.api import Api
from openseer_operator.objects.managed_redis import store_stateful_set
from openseer_process.store_access import StoreAccess
from tests.operator.control.test_apply import SETTINGS, Bench, bench
from tests.operator.stores import ACCESS

pytestmark = [pytest.mark.cluster]


@pytest.fixture
async def job(api: Api) -> Bench:
    return await bench(api)


async def test_the_password_of_a_store_is_written_and_never_read(job: Bench) -> None:
    for _ in range(2):
        await job.apply(ApplyShared("storeSecret"))
    assert {(verb, status) for verb, kind, status in job.api.calls if kind == "Secret"} == {
        ("POST", 201),
        ("POST", 409),
    }
    secret = job.target().secret
    found = await job.api.get("Secret", "default", secret)
    assert found["metadata"]["ownerReferences"][0]["uid"] == job.record.uid
    password = derived_password(job.target().job, job.record.uid, secret, ACCESS.keys())
    assert base64.b64decode(found["data"]["password"]).decode() == password


async def test_a_deleted_secret_is_created_again_with_the_same_password(job: Bench) -> None:
    contents: list[Any] = []
    for _ in range(2):
        await job.apply(ApplyShared("storeSecret"))
        contents.append((await job.api.get("Secret", "default", job.target().secret))["data"])
        await job.api.delete("Secret", "default", job.target().secret)
    assert contents[0] == contents[1]


async def test_a_job_keeps_its_first_secret(job: Bench, tmp_path: Path) -> None:
    began = job.target().secret
    raw = await job.api.get("RolloutJob", *job.key)
    (tmp_path / "2").write_bytes(b"a later key of the installation, newest of all")
    later = Observer(job.cache, job.census, job.stores, replace(SETTINGS, stores=StoreAccess(tmp_path)))
    assert later.store_secret(job.record, job.target().job) != began
    job.cache.put_job(_newer(raw, {"storeSecret": began}))
    assert later.store_secret(job.record, job.target().job) == began


async def test_a_job_with_a_random_password_keeps_its_secret_in_its_pods(job: Bench) -> None:
    old = f"{job.key[1]}-redis"
    made = store_stateful_set(job.target().job, job.record.uid, SETTINGS, 1, secret=old)
    job.census.put(await job.api.create("StatefulSet", "default", made), "StatefulSet")
    assert job.observer.observe(job.record, 0.0).shared["storeSecret"], "another Secret would be created"
    await job.apply(CreatePod(0, 0, 0), CreatePod(None, 0, 0), ScaleStore(0), ScaleStore(1))
    for name in ("worker-0", "driver"):
        (container,) = (await job.pod(f"{job.key[1]}-{name}"))["spec"]["containers"]
        variable = next(each for each in container["env"] if each["name"] == "OPENSEER_STORE_URL")
        assert variable["valueFrom"]["secretKeyRef"] == {"name": old, "key": "url"}
    found = await job.api.get("StatefulSet", "default", old)
    config = next(each for each in found["spec"]["template"]["spec"]["volumes"] if each["name"] == "config")
    assert config["secret"]["secretName"] == old


async def test_a_lost_secret_of_an_unknown_key_is_created_again_under_its_name(job: Bench) -> None:
    name = f"{job.key[1]}-redis"
    job.cache.put_job(_newer(await job.api.get("RolloutJob", *job.key), {"storeSecret": name}))
    await job.apply(ApplyShared("storeSecret"))
    made = await job.api.get("Secret", "default", name)
    newest = derived_secret_name(job.target().job, job.record.uid, ACCESS.keys()[0])
    password = derived_password(job.target().job, job.record.uid, newest, ACCESS.keys())
    assert base64.b64decode(made["data"]["password"]).decode() == password


def _newer(raw: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """The job's object with that status and a later version."""
    version = str(int(raw["metadata"]["resourceVersion"]) + 1)
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": version}, "status": status}
