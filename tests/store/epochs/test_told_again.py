"""Several clients repeat their writes to a store that lost its last second; their order does not matter."""

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
"""Seconds for which a client waits for the repeated writes of others, in the test of that wait."""


@contextlib.asynccontextmanager
async def two_clients(
    folder: Path, others_seconds: float = 0.0
) -> AsyncGenerator[tuple[ForgetfulRedis, Store, Store, int]]:
    """A server, two clients that repeat their writes, and a batch that the server does not lose."""
    async with forgetful_redis(folder) as redis:
        clients = [
            await open_store(redis.url, "job", tells_again=True, others_seconds=others_seconds) for _ in range(2)
        ]
        batch, _ = await clients[0].open_batch(OpenBatch("v1", "{}"))
        redis.save()
        yield redis, clients[0], clients[1], batch.number
        for client in clients:
            await client.close()


async def test_repeated_groups_are_accepted_after_a_later_seal(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, batch):
        await one.submit([group("a", 2, batch=batch), group("b", 2, batch=batch)])
        await two.seal(batch)
        await redis.roll_back()
        early = await two.progress(batch)
        assert (early.groups, early.complete) == (0, False)
        assert await two.submit([group("a", 2, batch=batch)]) == 1  # a second upload restores the group, too
        assert not (await two.progress(batch)).sealed
        whole = await one.progress(batch)
        assert (whole.groups, whole.sealed) == (2, True)
        with pytest.raises(BatchClosedError):
            await two.submit([group("c", 2, batch=batch)])


async def test_no_write_reaches_a_new_epoch_before_the_repeated_ones(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, _, batch):
        await one.submit([group("a", 2, batch=batch)])
        await redis.roll_back()
        await one.seal(batch)
        assert (await one.progress(batch)).groups == 1


async def test_groups_are_repeated_to_a_batch_that_was_sealed_since(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, two, batch):
        await one.submit([group("a", 2, batch=batch)])
        await redis.roll_back()
        await two.seal(batch)
        assert (await one.progress(batch)).groups == 1


async def test_a_refused_submission_is_not_repeated(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, _, batch):
        await one.seal(batch)
        with pytest.raises(BatchClosedError):
            await one.submit([group("a", 2, batch=batch)])
        await redis.roll_back()
        assert (await one.progress(batch)).groups == 0


async def test_an_older_verdict_is_not_restored(tmp_path: Path) -> None:
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


async def test_a_deleted_batch_is_not_restored(tmp_path: Path) -> None:
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


async def test_a_repeated_cancellation_does_not_end_a_later_turn(tmp_path: Path) -> None:
    async with two_clients(tmp_path) as (redis, one, _, batch):
        await one.submit([group("a", 2, batch=batch)])
        [first] = await one.claim(ANN, query(slots=1))
        await one.complete(ANN, [finish(first, 3)])
        await one.end_groups([GroupId(batch, "a")], Event.CANCEL)
        await one.go_on(first.request, 0, tokens(2, 2))
        redis.save()
        await redis.roll_back()
        assert (await one.record(first.request)).state is State.QUEUED


async def test_a_repeated_turn_follows_only_its_own_response(tmp_path: Path) -> None:
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


async def test_a_write_that_depends_on_anothers_is_repeated_after_it(
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
