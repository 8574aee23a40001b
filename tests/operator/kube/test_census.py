"""The census finds changes that the watch missed, and detects a silent watch."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from openseer_operator.kube import census
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.objects.names import JOB_LABEL, MANAGED_BY_LABEL, MANAGER, ROLE_LABEL, TEMPLATE_ANNOTATION
from openseer_operator.objects.reading import JobKey, JobRecord

pytestmark = [pytest.mark.cluster]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the pauses, which are minutes long, in the same order of length."""
    monkeypatch.setattr(census, "RECOUNT_SECONDS", 0.05)
    monkeypatch.setattr(census, "LATE_SECONDS", 0.3)


class Counting:
    """A census of one namespace. `told`: the jobs that it announced."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.cache = Cache()
        self.told: list[JobKey] = []
        self.census = Census(api, self.cache, (namespace,), self.told.append)

    async def job(self, name: str = "job") -> dict[str, Any]:
        body = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}},
        }
        return await self.api.create("RolloutJob", self.namespace, body)

    async def pod(self, role: str = "worker") -> dict[str, Any]:
        labels = {JOB_LABEL: "job", ROLE_LABEL: role, "openseer.dev/worker": "0", "openseer.dev/rank": "0"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"job-{role}", "labels": labels}}
        spec = {"containers": [{"name": "c", "image": "i"}]}
        return await self.api.create("Pod", self.namespace, {**body, "spec": spec})

    async def service(self, job: JobRecord) -> dict[str, Any]:
        owner = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "name": "job", "uid": job.uid}
        head = {
            "name": "job-workers",
            "labels": {JOB_LABEL: "job", MANAGED_BY_LABEL: MANAGER},
            "annotations": {TEMPLATE_ANNOTATION: "one"},
            "ownerReferences": [{**owner, "controller": True}],
        }
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": head}
        return await self.api.create("Service", self.namespace, {**body, "spec": {"ports": [{"port": 80}]}})

    def record(self) -> JobRecord:
        found = self.cache.job((self.namespace, "job"))
        assert found is not None
        return found


@pytest.fixture
def counting(api: Api, namespace: str) -> Counting:
    return Counting(api, namespace)


@asynccontextmanager
async def running(census: Census) -> AsyncGenerator[None]:
    task = asyncio.create_task(census.run())
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def lists(counting: Counting, at_least: int) -> None:
    """Waits until the census has read the last kind of its list `at_least` more times."""
    goal = counting.api.calls["LIST", "StatefulSet", 200] + at_least
    async with asyncio.timeout(20.0):
        while counting.api.calls["LIST", "StatefulSet", 200] < goal:
            counting.census.recount_soon()
            await asyncio.sleep(0.05)


async def test_at_the_start_every_job_and_pod_is_known(counting: Counting) -> None:
    await counting.job()
    pod = await counting.pod()
    await counting.census.fill()
    assert [kept.pod.uid for kept in counting.cache.pods((counting.namespace, "job"))] == [pod["metadata"]["uid"]]
    assert counting.record().job is not None


async def test_a_deleted_object_is_noticed_and_its_job_announced(counting: Counting) -> None:
    await counting.job()
    await counting.census.fill()
    job = counting.record()
    counting.census.put(await counting.service(job), "Service")
    held = counting.census.find(job, "Service", "job-workers")
    assert held is not None
    assert held.template == "one"
    async with running(counting.census):
        await lists(counting, 2)
        assert counting.told == []
        await counting.api.delete("Service", counting.namespace, "job-workers")
        await lists(counting, 2)
    assert counting.census.find(job, "Service", "job-workers") is None
    assert counting.told == [(counting.namespace, "job")]


async def test_objects_of_an_earlier_job_of_the_name_are_not_the_jobs_own(counting: Counting) -> None:
    await counting.job()
    await counting.census.fill()
    counting.census.put(await counting.service(counting.record()), "Service")
    await counting.api.delete("RolloutJob", counting.namespace, "job")
    counting.cache.put_job(await counting.job())
    assert counting.census.find(counting.record(), "Service", "job-workers") is None


async def test_pods_and_jobs_deleted_unseen_are_dropped_and_announced(counting: Counting) -> None:
    await counting.job()
    await counting.pod()
    await counting.census.fill()
    await counting.api.delete("Pod", counting.namespace, "job-worker", at_once=True)
    await counting.api.delete("RolloutJob", counting.namespace, "job")
    async with running(counting.census):
        await lists(counting, 1)
    key = (counting.namespace, "job")
    assert counting.cache.job(key) is None
    assert list(counting.cache.pods(key)) == []
    assert counting.told == [key, key]


async def test_a_watch_that_misses_a_change_is_stuck_until_it_delivers_it(counting: Counting) -> None:
    await counting.census.fill()
    raw = await counting.job()
    async with running(counting.census):
        await lists(counting, 1)
        assert f"1 changed objects, such as RolloutJob {counting.namespace}/job" in counting.census.stuck
        counting.cache.put_job(raw)
        await lists(counting, 2)
        assert counting.census.stuck == ""


async def test_a_watch_that_is_a_little_late_is_not_stuck(counting: Counting) -> None:
    await counting.census.fill()
    raw = await counting.job()
    async with running(counting.census):
        counting.census.recount_soon()
        await asyncio.sleep(0.2)
        counting.cache.put_job(raw)
        await lists(counting, 1)
        assert counting.census.stuck == ""


async def test_foreign_pods_are_not_expected_from_the_watch(counting: Counting) -> None:
    await counting.pod("stranger")
    await counting.census.fill()
    async with running(counting.census):
        await lists(counting, 2)
        assert counting.census.stuck == ""
