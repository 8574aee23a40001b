"""The whole process against a real API server; without nodes pods stay pending."""

import asyncio
import signal
from collections.abc import Awaitable
from pathlib import Path

import aiohttp
import pytest

from openseer_core.queue.batch import OpenBatch
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_operator.kube.api import Api, NotThereError
from openseer_store.connect import open_store
from tests.operator.job_store import JobStore
from tests.operator.whole_process import PATIENCE_SECONDS, components, operator, submit, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return reply.status, await reply.text()


async def test_a_job_is_created_rests_scales_suspends_and_is_deleted(api: Api, kubeconfig: Path) -> None:
    async with operator(kubeconfig, 18180, OPENSEER_LEASE="released") as process:
        job = await submit(api, workers={"replicas": 2})
        await until(lambda: _equal(components(api, job), {"driver", "worker-0", "worker-1"}))
        await until(lambda: _current(api, job, 2))
        await until(lambda: _rests(api, job))

        await api.delete("Pod", "default", f"{job}-worker-0", at_once=True)
        await until(lambda: _equal(components(api, job), {"driver", "worker-0", "worker-1"}))
        await api.merge("RolloutJob", "default", job, {"spec": {"workers": {"replicas": 1}}})
        await until(lambda: _equal(components(api, job), {"driver", "worker-0"}))
        await api.merge("RolloutJob", "default", job, {"spec": {"suspend": True}})
        await until(lambda: _equal(components(api, job), set()))
        await until(lambda: _is_stopped(api, f"{job}-redis"))

        status, text = await get("http://127.0.0.1:18180/metrics")
        assert status == 200
        assert f'openseer_job_workers{{job="{job}",namespace="default",state="desired"}} 0.0' in text
        assert (await get("http://127.0.0.1:18180/healthz"))[0] == 200
        assert (await get("http://127.0.0.1:18180/readyz"))[0] == 200

        await api.delete("RolloutJob", "default", job)
        await until(lambda: _metrics_lack("http://127.0.0.1:18180/metrics", job))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
        lease = await api.get("Lease", "default", "released")
        assert not lease["spec"].get("holderIdentity")


async def test_a_job_with_an_unreachable_store_is_released_after_a_limit(api: Api, kubeconfig: Path) -> None:
    async with operator(kubeconfig, 18181):
        job = await submit(api, store={"url": "redis://127.0.0.1:1/0"}, workers={"replicas": 1})
        await until(lambda: _equal(components(api, job), {"driver", "worker-0"}))
        await api.delete("RolloutJob", "default", job)
        await until(lambda: _equal(components(api, job), set()))
        assert (await api.get("RolloutJob", "default", job))["metadata"]["finalizers"] == ["openseer.dev/store"]


@pytest.mark.redis
async def test_a_serving_job_with_released_gpus_has_no_driver_and_no_worker(
    api: Api, kubeconfig: Path, server: JobStore
) -> None:
    async with operator(kubeconfig, 18182):
        job = await submit(api, mode="serve", store={"url": server.url}, workers={"replicas": 2})
        await until(lambda: _equal(components(api, job), {"worker-0", "worker-1"}))
        store = await open_store(server.url, job)
        try:
            assert await store.swap_fleet_spec(FleetSpec(revision=1, rest="stop"))
            await until(lambda: _equal(components(api, job), set()))
            await until(lambda: _reason(api, job, "Released"))
            assert await store.swap_fleet_spec(FleetSpec(revision=2))
            await until(lambda: _equal(components(api, job), {"worker-0", "worker-1"}))
            await store.open_batch(OpenBatch("initial", "{}"))
        finally:
            await store.close()
        await api.delete("RolloutJob", "default", job)
        await until(lambda: _gone(api, job))
        assert await server.command("KEYS", f"{{openseer:default/{job}}}*") == [
            f"{{openseer:default/{job}}}:store".encode()
        ]


async def _gone(api: Api, job: str) -> bool:
    try:
        await api.get("RolloutJob", "default", job)
    except NotThereError:
        return True
    return False


async def _reason(api: Api, job: str, reason: str) -> bool:
    return (await api.get("RolloutJob", "default", job))["status"]["reason"] == reason


async def _equal(found: Awaitable[set[str]], wanted: set[str]) -> bool:
    return await found == wanted


async def _is_stopped(api: Api, stateful_set: str) -> bool:
    return (await api.get("StatefulSet", "default", stateful_set))["spec"]["replicas"] == 0


async def _current(api: Api, job: str, workers: int) -> bool:
    found = await api.get("RolloutJob", "default", job)
    return found["status"]["workers"]["current"] == workers


async def _rests(api: Api, job: str) -> bool:
    """Whether the operator writes nothing for three seconds; False at the first write."""

    async def version() -> str:
        return (await api.get("RolloutJob", "default", job))["metadata"]["resourceVersion"]

    before = await version()
    for _ in range(30):
        await asyncio.sleep(0.1)
        if await version() != before:
            return False
    return True


async def _metrics_lack(url: str, job: str) -> bool:
    return job not in (await get(url))[1]
