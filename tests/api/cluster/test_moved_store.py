"""A job whose store does not answer is reopened after its URL has changed."""

from collections.abc import AsyncIterator
from typing import Any

from openseer_api.cluster.client import Kube
from openseer_api.cluster.directory import KubeDirectory
from openseer_api.cluster.jobs import KubeJobs
from openseer_core.manifest.job import RolloutJob

JOB = {
    "metadata": {"name": "job", "namespace": "lab", "uid": "u"},
    "spec": {"mode": "serve", "model": {"path": "m"}, "store": {"url": "redis://:one@mine:6379/0"}},
}


class OneJob(Kube):
    """An API server with one job."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = JOB

    async def pages(self, path: str) -> AsyncIterator[list[dict[str, Any]]]:
        yield [self.job]


async def test_a_failing_job_is_reopened_after_its_store_url_changes() -> None:
    opened: list[str] = []
    closed: list[str] = []
    troubled: set[str] = set()

    async def open_job(_job: RolloutJob, url: str) -> str:
        opened.append(url)
        return url

    async def close_job(url: str) -> None:
        closed.append(url)

    kube = OneJob()
    directory = KubeDirectory(KubeJobs(kube), open_job, close_job, is_troubled=troubled.__contains__)
    await directory.sync()
    one, two = "redis://:one@mine:6379/0", "redis://:two@mine:6379/0"
    troubled.add(one)
    await directory.sync()
    assert opened == [one]
    kube.job = {**JOB, "spec": {**JOB["spec"], "store": {"url": two}}}
    troubled.clear()
    await directory.sync()
    assert opened == [one]  # its connections are fit
    troubled.add(one)
    await directory.sync()
    assert opened == [one, two]
    await directory.close()
    assert sorted(closed) == [one, two]
