"""A job that nobody uses is looked after seldom, one that is used or works often; trouble with a store is told once."""

import asyncio
import logging

import pytest

from openseer_api.cluster.controlled_job import ControlledJob
from openseer_api.job.context import JobContext
from openseer_core.errors import StoreUnavailableError
from openseer_core.queue.batch import BatchRecord
from openseer_store.memory import MemoryStore
from tests.api.served import serving_job


class WatchedStore(MemoryStore):
    """Counts the looks at it; may be away."""

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


async def test_a_job_is_looked_after_often_from_the_moment_on_in_which_somebody_uses_it() -> None:
    store = WatchedStore()
    controlled = ControlledJob(JobContext(serving_job(), store))
    await asyncio.sleep(1.0)
    assert store.looks == 1
    controlled.mark_used()
    await asyncio.sleep(1.0)
    assert 4 <= store.looks <= 8
    await controlled.end()
    looks = store.looks
    await asyncio.sleep(0.5)
    assert (store.looks, store.closed) == (looks, True)


async def test_a_store_that_is_away_is_told_of_once_and_the_keeping_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "openseer_api.cluster.controlled_job")
    store = WatchedStore()
    store.away = True
    controlled = ControlledJob(JobContext(serving_job(), store))
    controlled.mark_used()
    await asyncio.sleep(2.5)
    assert store.looks == 2
    assert [record.getMessage() for record in caplog.records] == ["default/served: away"]
    store.away = False
    await asyncio.sleep(3.0)
    assert store.looks > 5
    await controlled.end()
