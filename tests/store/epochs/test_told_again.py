"""What several clients tell a store again that lost its last second: the order in which they do it changes nothing."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from openseer_core.errors import BatchClosedError
from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.states import Event, State
from openseer_store.connect import open_store
from openseer_store.port import Store
from tests.store.builders import ANN, delta, finish, group, query, tokens
from tests.store.rolled_back import ForgetfulRedis, forgetful_redis

pytestmark = pytest.mark.redis
OTHERS_SECONDS = 3600.0
"""What a client waits for others in the test that lets them tell in that time."""


@contextlib.asynccontextmanager
async def two_clients(
    folder: Path, others_seconds: float = 0.0
) -> AsyncGenerator[tuple[ForgetfulRedis, Store, Store, int]]:
    """A server, two clients that tell it again, and a batch that it does not forget."""
    async with forgetful_redis(folder) as redis:
        clients = [
            await open_store(redis.url, "job", tells_again=True, others_seconds=others_seconds) for _ in range(2)
        ]
        batch, _ = await clients[0].open_batch(OpenBatch("v1", "{}"))
        redis.save()
        yield redis, clients[0], clients[1], batch.number
        for client in clients:
            await client.close()


async def test_groups_are_taken_also_after_the_seal_that_came_behind_them(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, batch):
        await one.submit([group("a", 2, batch=batch), group("b", 2, batch=batch)])
        await two.seal(batch)
        await redis.roll_back()
        early = await two.progress(batch)
        assert (early.groups, early.complete) == (0, False)
        assert await two.submit([group("a", 2, batch=batch)]) == 1  # whoever uploads again helps, too
        assert not (await two.progress(batch)).sealed
        whole = await one.progress(batch)
        assert (whole.groups, whole.sealed) == (2, True)
        with pytest.raises(BatchClosedError):
            await two.submit([group("c", 2, batch=batch)])


async def test_no_write_reaches_a_new_epoch_before_what_is_told_again(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, _, batch):
        await one.submit([group("a", 2, batch=batch)])
        await redis.roll_back()
        await one.seal(batch)
        assert (await one.progress(batch)).groups == 1


async def test_groups_are_told_again_also_to_a_batch_that_another_has_sealed_since(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, batch):
        await one.submit([group("a", 2, batch=batch)])
        await redis.roll_back()
        await two.seal(batch)
        assert (await one.progress(batch)).groups == 1


async def test_a_submission_that_was_refused_is_not_told_again(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, _, batch):
        await one.seal(batch)
        with pytest.raises(BatchClosedError):
            await one.submit([group("a", 2, batch=batch)])
        await redis.roll_back()
        assert (await one.progress(batch)).groups == 0


async def test_an_older_verdict_does_not_come_back(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, batch):
        await one.submit([group("a", 1, batch=batch), group("b", 1, batch=batch)])
        await one.judge(batch, {"a": True, "b": True})
        await two.judge(batch, {"a": False})
        redis.save()
        await redis.roll_back()
        for store in (two, one):
            await store.now()
        assert [await one.verdict(GroupId(batch, name)) for name in "ab"] == [False, True]
        progress = await one.progress(batch)
        assert (progress.valid, progress.invalid) == (1, 1)


async def test_a_deleted_batch_does_not_come_back(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, _):
        batch = (await one.open_batch(OpenBatch("v1", "{}")))[0].number
        await one.submit([group("a", 2, batch=batch)])
        await two.forget(batch)
        await redis.roll_back()
        for store in (two, one):
            await store.now()
        record = await one.batch(batch)
        assert record is not None
        assert (record.forgotten, record.progress.requests) == (True, 0)


async def test_a_cancellation_told_again_leaves_a_turn_that_came_since(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, _, batch):
        await one.submit([group("a", 2, batch=batch)])
        [first] = await one.claim(ANN, query(slots=1))
        await one.complete(ANN, [finish(first, 3)])
        await one.end_groups([GroupId(batch, "a")], Event.CANCEL)
        await one.go_on(first.request, 0, tokens(2, 2))
        redis.save()
        await redis.roll_back()
        assert (await one.record(first.request)).state is State.QUEUED


async def test_a_turn_told_again_follows_only_the_response_that_it_was_for(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, batch):
        await one.submit([group("a", 2, batch=batch)])
        redis.save()
        claims = await one.claim(ANN, query(slots=2))
        await one.extend(ANN, [delta(claims[1], 3)], [], lease_seconds=5.0, version="v1", lanes=("",))
        await one.complete(ANN, [finish(claims[0], 3)])
        await one.go_on(claims[0].request, 0, tokens(2, 2))
        await redis.roll_back()
        again = await two.claim(ANN, query(slots=2))
        await two.complete(ANN, [finish(again[0], 2)])
        record = await one.record(RequestId(GroupId(batch, "a"), 0))
        assert (record.turn, record.state) == (0, State.DONE)


async def test_what_builds_on_anothers_write_is_told_once_more_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_clients(tmp_path, others_seconds=OTHERS_SECONDS) as (redis, one, two, batch):
        await one.submit([group("a", 1, batch=batch)])
        await two.judge(batch, {"a": True})
        await redis.roll_back()
        sleep, waits = asyncio.sleep, list[str]()

        async def others_tell(seconds: float) -> None:
            if seconds != OTHERS_SECONDS:
                await sleep(seconds)
            elif not waits:
                waits.append("two")
                await one.now()
            else:
                waits.append("one")

        monkeypatch.setattr("asyncio.sleep", others_tell)
        assert await two.verdict(GroupId(batch, "a")) is True
        assert waits == ["two", "one"]
