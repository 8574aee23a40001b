"""A replica that cannot work reports it to its liveness probe; a replica that waits for the lease is healthy."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import CollectorRegistry, Gauge

from openseer_operator.control import health
from openseer_operator.control.health import MOST_SILENCE_SECONDS, HealthCheck, health_checks, serve_http
from openseer_operator.control.loop import Loop
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.lease import Elector
from openseer_operator.objects.reading import JobKey
from tests.ports import reserved_port


class Parts:
    """The checked parts, none of them started; no call to an API server is made."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.elector = Elector(api, "default", "lease", "me")
        self.hold = asyncio.Event()
        self.loop = Loop(self._look, lambda waited, seconds, failed: None)
        self.census = Census(api, Cache(), (), lambda key: None)
        self.checks = health_checks(api, self.elector, self.loop, self.census)

    async def _look(self, key: JobKey) -> None:
        await self.hold.wait()

    def found(self) -> list[str]:
        return [problem for check in self.checks if (problem := check())]


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    client = ApiClient(Configuration())
    yield Parts(Api(client))
    await client.close()


async def test_a_new_replica_is_healthy(parts: Parts) -> None:
    assert parts.found() == []


async def test_every_replica_reports_a_silent_api_server(parts: Parts) -> None:
    parts.api.answered_at = time.monotonic() - MOST_SILENCE_SECONDS + 10
    assert parts.found() == []
    parts.api.answered_at -= 20
    (problem,) = parts.found()
    assert re.fullmatch(r"the Kubernetes API has not answered for \d{3} s", problem)


async def test_the_leader_reports_a_stuck_watch(parts: Parts) -> None:
    parts.census.stuck = "the watch has not reported 1 changed objects"
    assert parts.found() == []
    parts.elector.leads = True
    assert "the watch has not reported 1 changed objects" in parts.found()


async def test_the_leader_reports_a_lease_that_is_not_renewed(parts: Parts) -> None:
    assert parts.found() == []
    parts.elector.leads = True
    (problem,) = parts.found()
    assert "lease was not renewed" in problem


async def test_the_leader_reports_a_hanging_reconcile_step(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_LAG_SECONDS", 0.1)
    running = asyncio.create_task(parts.loop.run())
    parts.loop.add(("n", "a"))
    await asyncio.sleep(0.3)
    assert parts.found() == []
    parts.elector.leads = True
    assert any(problem.startswith("a job has waited for") for problem in parts.found())
    parts.hold.set()
    async with asyncio.timeout(60.0):
        while any("a job has waited" in problem for problem in parts.found()):
            await asyncio.sleep(0.01)
    parts.loop.stop()
    await running


@asynccontextmanager
async def replica(checks: list[HealthCheck], ready: HealthCheck) -> AsyncGenerator[str]:
    port = reserved_port()
    registry = CollectorRegistry()
    Gauge("openseer_test", "A figure", registry=registry).set(7)
    async with serve_http(port, checks, ready, registry):
        yield f"http://127.0.0.1:{port}"


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return reply.status, await reply.text()


async def test_probes_answer_503_with_all_problems_and_200_after_their_end() -> None:
    wrong = {"one": "the lease is late", "two": "the watch is stuck", "ready": "starting"}
    checks: list[HealthCheck] = [lambda: wrong["one"], lambda: wrong["two"]]
    async with replica(checks, lambda: wrong["ready"]) as url:
        assert await get(url + "/healthz") == (503, "the lease is late; the watch is stuck")
        assert await get(url + "/readyz") == (503, "starting")
        wrong.update(one="", two="", ready="")
        assert await get(url + "/healthz") == (200, "ok")
        assert await get(url + "/readyz") == (200, "ok")
        status, text = await get(url + "/metrics")
        assert status == 200
        assert "openseer_test 7.0" in text
