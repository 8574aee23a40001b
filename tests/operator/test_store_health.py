"""The operator's metrics of a job's store: reachability, latency, memory, age of the transaction."""

import asyncio
import signal
from collections.abc import Callable

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Publish, Source
from openseer_operator.control.metrics import StoreHealth
from openseer_operator.control.store_poller import READ_SECONDS, StorePoller
from openseer_operator.kube.api import Api
from openseer_operator.objects.reading import read_job
from tests.operator.job_store import JobStore
from tests.operator.stores import ACCESS

pytestmark = [pytest.mark.redis]
KEY = ("default", "job")


async def until(stores: StorePoller, true: Callable[[StoreHealth], bool]) -> StoreHealth:
    async with asyncio.timeout(120.0):
        while True:
            health = stores.health(KEY)
            assert health is not None
            if true(health):
                return health
            await asyncio.sleep(0.02)


async def test_a_stores_health_is_measured_during_reads(server: JobStore) -> None:
    found = read_job(
        {
            "metadata": {"name": "job", "namespace": "default", "uid": "uid", "generation": 1},
            "spec": {"model": {"path": "m"}, "mode": "serve", "store": {"url": server.url}},
        }
    )
    client = ApiClient(Configuration())
    stores = StorePoller(Api(client), lambda _: None, access=ACCESS)
    try:
        assert stores.health(KEY) is None
        stores.watch(found)
        assert not (await until(stores, lambda health: not health.up)).up

        health = await until(stores, lambda health: health.up)
        assert health.memory.used > 0
        assert 0 < health.read_seconds < READ_SECONDS
        assert health.publishing_seconds == 0

        ongoing = WeightsTransaction(
            id=1,
            publish=Publish(version="v1", source=Source(path="/weights")),
            previous="initial",
            previous_source=None,
            phase="load",
            started_at=await server.store.now() - 60.0,
            entered_at=await server.store.now(),
        )
        assert await server.store.swap_fleet_spec(FleetSpec(revision=1, transaction=ongoing))
        assert 60 <= (await until(stores, lambda health: health.publishing_seconds > 0)).publishing_seconds < 600

        server.send_signal(signal.SIGSTOP)
        try:
            await until(stores, lambda health: not health.up)
        finally:
            server.send_signal(signal.SIGCONT)
        stores.unwatch(KEY)
        assert stores.health(KEY) is None
    finally:
        await stores.close()
        await client.close()
