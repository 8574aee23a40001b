"""The gateway's whole process: a real API server, a real Redis, tokens of ServiceAccounts; batches over HTTP."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from openseer_store.embedded import EmbeddedRedis
from tests.api.cluster.tenants import Tenant, delete_job, make_job, set_status
from tests.api.page.watching import Viewer
from tests.operator.control_plane import ControlPlane
from tests.operator.stores import ENVIRONMENT
from tests.ports import reserved_port

pytestmark = [pytest.mark.cluster, pytest.mark.redis, pytest.mark.slow]
START_SECONDS = 120.0
"""Longest wait for a process that starts or ends, and for what it hears of."""
QUICK = """
import sys
from openseer_api import main
from openseer_api.cluster import directory, jobs
directory.SYNC_SECONDS, jobs.FOUND_SECONDS, main.FINISH_SECONDS = 1.0, 1.0, 2
sys.exit(main.main())
"""
"""The gateway with short intervals: it finds changes of jobs in a second, and ends open calls after two."""
SPEC: dict[str, Any] = {"model": {"path": "none", "engine": "scripted"}, "sampling": {"maxTokens": 8}}


class Gateway:
    """One replica; `client` waits for the answer, `url` is its address."""

    def __init__(self, kubeconfig: Path) -> None:
        self.port, self.metrics_port = reserved_port(), reserved_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._kubeconfig = kubeconfig
        self.client = httpx.AsyncClient(base_url=self.url, timeout=60.0)
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        environment = os.environ | {
            "KUBECONFIG": str(self._kubeconfig),
            "OPENSEER_HTTP_PORT": str(self.port),
            "OPENSEER_METRICS_PORT": str(self.metrics_port),
            **ENVIRONMENT,
        }
        self.process = await asyncio.create_subprocess_exec(sys.executable, "-c", QUICK, env=environment)
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    if (await self.client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    async def end(self, number: int) -> int:
        """Sends the signal and returns the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()

    async def call(self, tenant: Tenant, method: str, path: str, job: str = "", **what: Any) -> httpx.Response:
        """Makes one call as a tenant, by default to the tenant's own job."""
        where = f"/jobs/{tenant.namespace}/{job or tenant.job}{path}"
        headers = {"Authorization": f"Bearer {tenant.token()}", **what.pop("headers", {})}
        return await self.client.request(method, where, headers=headers, **what)


@asynccontextmanager
async def running(plane: ControlPlane) -> AsyncGenerator[Gateway]:
    gateway = Gateway(plane.kubeconfig)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.client.aclose()
        if gateway.process.returncode is None:
            await gateway.end(signal.SIGKILL)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedRedis(tmp_path / "redis") as url:
        yield url


async def until_status(gateway: Gateway, tenant: Tenant, status: int) -> None:
    async with asyncio.timeout(START_SECONDS):
        while (await gateway.call(tenant, "GET", "/v1/job")).status_code != status:
            await asyncio.sleep(0.3)


async def test_a_killed_gateway_loses_nothing_of_two_tenants(plane: ControlPlane, namespace: str, redis: str) -> None:
    for name in ("ann", "bob"):
        make_job(plane, namespace, name, store={"url": redis}, **SPEC)
    ann, bob = (Tenant(plane, namespace, name, "get", "update") for name in ("ann", "bob"))
    async with running(plane) as gateway:
        await until_status(gateway, ann, 200)
        await until_status(gateway, bob, 200)
        opened = await gateway.call(ann, "POST", "/v1/batches", json={}, headers={"Idempotency-Key": "one"})
        assert opened.status_code == 201, opened.text
        number = opened.json()["id"]
        groups = {"groups": [{"id": "g", "prompt_token_ids": [1, 2], "n": 2}]}
        sent = await gateway.call(ann, "POST", f"/v1/batches/{number}/groups", json=groups)
        assert sent.json() == {"accepted": 1, "present": 0}
        assert (await gateway.call(bob, "GET", "/v1/batches")).json() == {"batches": []}
        assert (await gateway.call(bob, "GET", f"/v1/batches/{number}")).status_code == 404
        for method, path in (("GET", f"/v1/batches/{number}"), ("POST", "/v1/batches"), ("GET", "/metrics")):
            assert (await gateway.call(bob, method, path, "ann")).status_code == 403
        assert (await gateway.client.get(f"/jobs/{namespace}/ann/v1/job")).status_code == 401
        assert (await gateway.client.get("/metrics")).status_code == 404
        told = (await gateway.client.get(f"http://127.0.0.1:{gateway.metrics_port}/metrics")).text
        assert f'openseer_api_calls_total{{code="201",job="ann",namespace="{namespace}"}} 1.0' in told
        assert 'openseer_api_calls_total{code="401",job="",namespace=""} 1.0' in told

        await gateway.end(signal.SIGKILL)
        await gateway.start()
        again = await gateway.call(ann, "POST", "/v1/batches", json={}, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()["id"]) == (200, number)
        assert again.json()["metrics"]["requests"] == 2


async def test_a_running_batch_job_is_visible_on_the_page_to_its_readers_only(
    plane: ControlPlane, namespace: str, redis: str
) -> None:
    make_job(plane, namespace, "ann", mode="batch", prompts={"path": "p.jsonl"}, store={"url": redis}, **SPEC)
    ann, bob = (Tenant(plane, namespace, name, "get") for name in ("ann", "bob"))
    async with running(plane) as gateway, asyncio.timeout(START_SECONDS):
        viewer = Viewer(gateway.client)
        assert await viewer.login(ann.token()) == 204
        view = await viewer.until("/jobs", lambda view: view["jobs"])
        assert [(card["name"], card["mode"]) for card in view["jobs"]] == [("ann", "batch")]
        view = await viewer.first(f"/jobs/{namespace}/ann")
        assert view["card"]["reason"] == "no worker has started yet; wanted: 1"
        assert (await gateway.call(ann, "GET", "/v1/job")).status_code == 404
        assert await viewer.login(bob.token()) == 204
        assert await viewer.status(f"/jobs/{namespace}/ann") == 403
        assert await viewer.login(ann.token()) == 204
        set_status(plane, namespace, "ann", completionTime="2026-11-29T12:00:00Z")
        while await viewer.status(f"/jobs/{namespace}/ann") != 404:
            await asyncio.sleep(0.3)


async def test_new_and_deleted_jobs_are_noticed_and_the_process_exits_in_order(
    plane: ControlPlane, namespace: str, redis: str
) -> None:
    ann = Tenant(plane, namespace, "ann", "get", "update")
    async with running(plane) as gateway:
        await until_status(gateway, ann, 404)
        make_job(plane, namespace, "ann", store={"url": redis}, **SPEC)
        await until_status(gateway, ann, 200)
        # An open stream does not delay the exit of the process.
        number = (await gateway.call(ann, "POST", "/v1/batches", json={})).json()["id"]
        results = f"/v1/batches/{number}/results?wait_seconds=50"
        waiting = asyncio.create_task(gateway.call(ann, "GET", results))
        delete_job(plane, namespace, "ann")
        await until_status(gateway, ann, 404)
        assert await gateway.end(signal.SIGTERM) == 0
        await asyncio.wait([waiting])
        assert waiting.exception() is None or isinstance(waiting.exception(), httpx.TransportError)


async def test_an_unreachable_store_gives_503_and_leaves_other_jobs_alone(
    plane: ControlPlane, namespace: str, redis: str
) -> None:
    make_job(plane, namespace, "up", store={"url": redis}, **SPEC)
    make_job(plane, namespace, "down", store={"url": "redis://127.0.0.1:1/0"}, **SPEC)
    make_job(plane, namespace, "unmade", **SPEC)
    up, down, unmade = (Tenant(plane, namespace, name, "get") for name in ("up", "down", "unmade"))
    async with running(plane) as gateway:
        await until_status(gateway, up, 200)
        await until_status(gateway, down, 503)
        await until_status(gateway, unmade, 503)
        refused = await gateway.call(unmade, "GET", "/v1/job")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"]
        assert "the operator has not created it" in refused.json()["detail"]
