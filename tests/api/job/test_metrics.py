"""Prometheus metrics of calls, per job and status; on the gateway also of calls for which no job was found."""

from collections import Counter
from collections.abc import Mapping

import httpx
import pytest

from openseer_api.app import create_app
from openseer_api.job.context import JobContext, UnopenedJob
from openseer_api.job.metrics import calls_of
from openseer_core.queue.batch import QueueLoad
from openseer_process.metric_table import GATEWAY
from openseer_store.memory import MemoryStore
from tests.api.served import Served, serving_job


class Anybody:
    """Admits every caller."""

    async def check(self, token: str | None, namespace: str, job: str, access: str) -> None:
        pass

    async def identify(self, token: str | None) -> None:
        pass


class Broken(MemoryStore):
    """A store that raises an unexpected error."""

    async def load(self) -> QueueLoad:
        raise ZeroDivisionError


class Jobs:
    """Two jobs, one of them with a store that fails."""

    def __init__(self) -> None:
        self.contexts = {
            "sound": JobContext(serving_job("sound"), MemoryStore()),
            "broken": JobContext(serving_job("broken"), Broken()),
        }

    async def find(self, namespace: str, name: str) -> JobContext | None:
        return self.contexts.get(name)

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        return await self.find(namespace, name)

    def open_jobs(self) -> list[JobContext]:
        return list(self.contexts.values())

    def unopened(self) -> list[UnopenedJob]:
        return []


def counted(jobs: Jobs, refused: Mapping[int, int]) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["job"], sample.labels["code"]): sample.value
        for family in calls_of(jobs.contexts.values(), refused)
        for sample in family.samples
        if sample.name == "openseer_api_calls_total"
    }


async def test_a_gateway_counts_calls_by_job_and_status_and_no_probes() -> None:
    jobs, refused = Jobs(), Counter[int]()
    app = create_app(jobs, Anybody(), many=True, refused=refused)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for _ in range(2):
            assert (await client.get("/jobs/default/sound/v1/job")).status_code == 200
        assert (await client.get("/jobs/default/sound/v1/batches/7")).status_code == 404
        assert (await client.get("/jobs/default/broken/v1/job")).status_code == 500
        assert (await client.get("/jobs/default/nobody/v1/job")).status_code == 404
        assert (await client.get("/healthz")).status_code == 200

    assert counted(jobs, refused) == {
        ("sound", "200"): 2.0,
        ("sound", "404"): 1.0,
        ("broken", "500"): 1.0,
        ("", "404"): 1.0,
    }


def test_a_gateway_exports_the_metrics_of_the_documented_table() -> None:
    told = {
        f"{family.type} {sample.name}": tuple(sample.labels)
        for family in calls_of(Jobs().contexts.values(), {401: 1})
        for sample in family.samples
    }
    assert told == {f"{metric.kind} {metric.name}": metric.label_names for metric in GATEWAY}


@pytest.mark.parametrize("token", ["wrong", None])
async def test_a_server_of_one_job_counts_refused_calls(token: str | None) -> None:
    async with Served() as served, served.client(token) as stranger:
        assert (await stranger.get("/v1/job")).status_code == 401
        text = (await served.http.get("/metrics")).text
    assert 'openseer_api_calls_total{code="401",job="served",namespace="default"} 1.0' in text
