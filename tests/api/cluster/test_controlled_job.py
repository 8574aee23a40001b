"""The control loop of a job: rare rounds while unused, frequent ones while used or working; one log line per store
error."""

import asyncio
import logging

import pytest

from openseer_api.batch_controller import ROUND_SECONDS
from openseer_api.cluster import controlled_job
from openseer_api.cluster.controlled_job import ControlledJob
from openseer_api.job.context import JobContext
from openseer_core.errors import StoreUnavailableError
from openseer_core.queue.batch import BatchRecord
from openseer_store.memory import MemoryStore
from tests.api.served import serving_job


class WatchedStore(MemoryStore):
    """A store that counts the rounds of the control loop; with `away` it raises errors."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.away = False
        self.closed = False

    async def batches(self) -> list[BatchRecord]:
        self.looks += 1
        if self.away:
            raise StoreUnavailableError("away")
        return await super().batches()

    async def close(self) -> None:
        self.closed = True


async def until_looks(store: WatchedStore, count: int) -> None:
    async with asyncio.timeout(60.0):
        while store.looks < count:
            await asyncio.sleep(0.02)


async def test_a_used_job_is_controlled_every_round_an_idle_one_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controlled_job, "IDLE_SECONDS", 3600.0)
    store, now = WatchedStore(), asyncio.get_running_loop().time
    controlled = ControlledJob(JobContext(serving_job(), store))
    await until_looks(store, 1)
    await asyncio.sleep(0.5)
    assert store.looks == 1
    used_at = now()
    controlled.mark_used()
    await until_looks(store, 5)
    assert store.looks <= 2 + (now() - used_at) / ROUND_SECONDS
    await controlled.end()
    looks = store.looks
    await asyncio.sleep(0.5)
    assert (store.looks, store.closed) == (looks, True)


async def test_an_unreachable_store_is_logged_once_and_polled_further(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlled_job, "TROUBLE_SECONDS", 0.5)
    caplog.set_level(logging.WARNING, "openseer_api.cluster.controlled_job")
    store, now = WatchedStore(), asyncio.get_running_loop().time
    store.away = True
    away_at = now()
    controlled = ControlledJob(JobContext(serving_job(), store))
    controlled.mark_used()
    await until_looks(store, 3)
    assert store.looks <= 1 + (now() - away_at) / 0.5
    assert [record.getMessage() for record in caplog.records] == ["default/served: away"]
    store.away = False
    await until_looks(store, 8)
    await controlled.end()
