"""Jobs are opened once, at the first request or when the watch finds them, and closed after their deletion."""

import asyncio
from collections.abc import Callable

import pytest

from openseer_api.cluster import directory, jobs
from openseer_api.cluster.client import Kube
from openseer_api.cluster.directory import OPENING, KubeDirectory
from openseer_api.cluster.jobs import KubeJobs
from openseer_core.errors import StoreUnavailableError
from openseer_core.manifest.job import RolloutJob
from tests.api.cluster.tenants import delete_job, make_job
from tests.operator.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster]
STORE = {"url": "redis://mine:6379/0"}
FOUND_SECONDS = 1.0
"""Cache TTL of a found job in these tests, in seconds."""


class Desk:
    """Records the jobs that the directory opens and closes. `silent`: jobs whose store does not answer."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.silent: set[str] = set()
        self.jobs: dict[str, RolloutJob] = {}
        self.directory = KubeDirectory(KubeJobs(kube, [namespace]), self._open, self._close, self._renew)

    async def _open(self, job: RolloutJob, url: str) -> str:
        assert url == STORE["url"]
        await asyncio.sleep(0.05)
        if job.name in self.silent:
            raise StoreUnavailableError("away")
        self.opened.append(job.name)
        return f"{job.name} {len(self.opened)}"

    async def _close(self, context: str) -> None:
        self.closed.append(context)

    def _renew(self, context: str, job: RolloutJob) -> None:
        self.jobs[context] = job


@pytest.fixture
def desk(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(jobs, "FOUND_SECONDS", FOUND_SECONDS)
    return Desk(kube, namespace)


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


async def test_concurrent_lookups_open_a_job_once(plane: ControlPlane, desk: Desk, namespace: str) -> None:
    make_job(plane, namespace, "job", store=STORE)
    calls = [asyncio.create_task(desk.directory.find(namespace, "job")) for _ in range(5)]
    await asyncio.sleep(0.02)
    calls[0].cancel()
    assert await asyncio.gather(*calls[1:]) == ["job 1"] * 4
    assert await desk.directory.find(namespace, "nowhere") is None
    await desk.directory.close()
    assert (desk.opened, desk.closed) == (["job"], ["job 1"])


async def test_a_job_is_opened_when_its_silent_store_answers(plane: ControlPlane, desk: Desk, namespace: str) -> None:
    make_job(plane, namespace, "job", store=STORE)
    desk.silent = {"job"}
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await desk.directory.find(namespace, "job")
    assert len(desk.directory) == 0
    desk.silent = set()
    assert await desk.directory.find(namespace, "job") == "job 1"


async def test_serving_jobs_are_opened_unasked_despite_one_silent_store(
    plane: ControlPlane, desk: Desk, namespace: str
) -> None:
    for name in ("a", "b", "c"):
        make_job(plane, namespace, name, store=STORE)
    make_job(plane, namespace, "asleep", store=STORE, suspend=True)
    desk.silent = {"b"}
    await desk.directory.sync()
    assert sorted(desk.opened) == ["a", "c"]


async def test_the_reason_is_reported_for_a_job_that_is_not_open(
    plane: ControlPlane, desk: Desk, namespace: str
) -> None:
    def told() -> dict[str, str]:
        return {job.name: reason for job, reason in desk.directory.unopened()}

    make_job(plane, namespace, "sound", store=STORE)
    make_job(plane, namespace, "away", store=STORE)
    make_job(plane, namespace, "asleep", store=STORE, suspend=True)
    desk.silent = {"away"}
    syncing = asyncio.create_task(desk.directory.sync())
    await until(lambda: told() == {"away": OPENING, "sound": OPENING})
    await syncing
    assert told() == {"away": "away"}
    desk.silent = set()
    await desk.directory.sync()
    assert told() == {}


async def test_a_deleted_job_is_closed_and_its_successor_is_another_job(
    plane: ControlPlane, desk: Desk, namespace: str
) -> None:
    make_job(plane, namespace, "job", store=STORE)
    assert await desk.directory.find(namespace, "job") == "job 1"
    delete_job(plane, namespace, "job")
    make_job(plane, namespace, "job", store=STORE)
    await desk.directory.sync()
    await until(lambda: desk.closed == ["job 1"])
    assert await desk.directory.find(namespace, "job") == "job 2"
    delete_job(plane, namespace, "job")
    await asyncio.sleep(FOUND_SECONDS + 0.1)
    assert await desk.directory.find(namespace, "job") is None
    await until(lambda: desk.closed == ["job 1", "job 2"])


async def test_a_changed_manifest_is_noticed(plane: ControlPlane, desk: Desk, namespace: str) -> None:
    make_job(plane, namespace, "job", store=STORE, workers={"replicas": 1})
    assert await desk.directory.find(namespace, "job") == "job 1"
    scale_job = f"/apis/openseer.dev/v1alpha1/namespaces/{namespace}/rolloutjobs/job"
    plane.request(scale_job, b'{"spec": {"workers": {"replicas": 5}}}', "PATCH", "application/merge-patch+json")
    await asyncio.sleep(FOUND_SECONDS + 0.1)
    assert await desk.directory.find(namespace, "job") == "job 1"
    assert desk.jobs["job 1"].spec.workers.replicas == 5


async def test_jobs_are_open_only_while_the_page_is_watched(
    plane: ControlPlane, desk: Desk, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "SYNC_SECONDS", 0.05)
    monkeypatch.setattr(directory, "UNWANTED_SECONDS", 0.05)
    make_job(plane, namespace, "job", store=STORE)
    wanted: list[str] = []
    watching = asyncio.create_task(desk.directory.watch(lambda: bool(wanted)))
    await asyncio.sleep(0.2)
    assert desk.opened == []
    wanted.append("somebody")
    await until(lambda: desk.opened == ["job"])
    wanted.clear()
    await until(lambda: desk.closed == ["job 1"])
    wanted.append("somebody")
    await until(lambda: desk.opened == ["job", "job"])
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await desk.directory.close()
