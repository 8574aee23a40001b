"""A driver whose store restarts from an older log: lost writes are sent again, and each result is written once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openseer_core.admission import ModelLimits
from openseer_core.errors import DriverFencedError
from openseer_core.ids import INITIAL_VERSION
from openseer_core.manifest.prompts import PromptLine
from openseer_core.queue.messages import BatchProgress
from openseer_driver.driver import Driver
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.submission import render_groups
from openseer_store.connect import open_store
from openseer_store.port import Store
from openseer_text.rendering import open_codec
from tests.driver.small_jobs import small_job
from tests.store.builders import ANN, finish, query
from tests.store.rolled_back import ForgetfulRedis, forgetful_redis

pytestmark = pytest.mark.redis

PROMPTS = [PromptLine(f"g{number}", number, prompt_token_ids=(1, 2, 3)) for number in range(3)]
REQUESTS = 2 * len(PROMPTS)
JOB = small_job(probe=False)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[ForgetfulRedis]:
    async with forgetful_redis(tmp_path) as server:
        yield server


@pytest.fixture
async def store(redis: ForgetfulRedis) -> AsyncIterator[Store]:
    store = await open_store(redis.url, "job")
    yield store
    await store.close()


@pytest.fixture
def writer(tmp_path: Path) -> ResultsWriter:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return ResultsWriter(folder)


def driver_of(store: Store, writer: ResultsWriter, boot: str = "", fence: int = 0) -> Driver:
    codec = open_codec(JOB.spec.model)
    groups = list(render_groups(JOB, "prompts.jsonl", PROMPTS, codec, ModelLimits(), 0.0))
    return Driver(store, groups, writer, codec, boot, fence)


async def work(store: Store, most: int) -> None:
    """Claims and completes up to `count` requests."""
    claims = await store.claim(ANN, query(slots=most, version=INITIAL_VERSION))
    await store.complete(ANN, [finish(claim, 3) for claim in claims])


async def collect_while_working(driver: Driver, store: Store) -> None:
    collecting = asyncio.create_task(driver.collect())
    while not collecting.done():
        await work(store, 100)
        await asyncio.sleep(0.01)
    await collecting


async def test_a_lost_submission_and_seal_are_sent_again(
    redis: ForgetfulRedis, store: Store, writer: ResultsWriter, tmp_path: Path
) -> None:
    redis.save()
    driver = driver_of(store, writer)
    await driver.submit()
    await work(store, 2)
    collecting = asyncio.create_task(driver.collect())
    while writer.count < 2:
        await asyncio.sleep(0.01)
    collecting.cancel()
    await asyncio.wait([collecting])
    await redis.roll_back()
    await collect_while_working(driver, store)
    assert writer.count == REQUESTS
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    assert len(lines) == REQUESTS


async def test_a_rollback_after_completion_does_not_end_the_driver_early(
    redis: ForgetfulRedis, store: Store, writer: ResultsWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_of(store, writer)
    await driver.submit()
    await work(store, 2)
    redis.save()
    progress, rolled_back = store.progress, False

    async def progress_before_the_end(batch: int) -> BatchProgress:
        nonlocal rolled_back
        found = await progress(batch)
        if found.complete and not rolled_back:
            rolled_back = True
            await redis.roll_back()
        return found

    monkeypatch.setattr(store, "progress", progress_before_the_end)
    await work(store, 100)
    await collect_while_working(driver, store)
    assert (rolled_back, writer.count) == (True, REQUESTS)


async def test_a_driver_lost_by_the_store_keeps_its_fence(
    redis: ForgetfulRedis, store: Store, writer: ResultsWriter
) -> None:
    redis.save()
    fence = await store.acquire_driver("boot")
    await redis.roll_back()
    assert await store.acquire_driver("boot", fence) == fence
    await store.acknowledge(0, 0, fence)


async def test_a_driver_does_not_take_the_job_back_from_a_newer_one(store: Store, writer: ResultsWriter) -> None:
    old, new = driver_of(store, writer), driver_of(store, writer)
    await old.submit()
    await new.submit()
    with pytest.raises(DriverFencedError):
        await old.submit()
    await work(store, 100)
    await new.collect()


async def test_a_stale_driver_that_submits_late_is_fenced(store: Store, writer: ResultsWriter) -> None:
    fence = await store.acquire_driver("old")
    new = driver_of(store, writer)
    await new.submit()
    with pytest.raises(DriverFencedError):
        await driver_of(store, writer, "old", fence).submit()
    await work(store, 100)
    await new.collect()
