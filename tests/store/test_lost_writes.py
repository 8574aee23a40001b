"""A store that restarts from an older log: no number is issued twice, and its clients notice."""

from pathlib import Path

import pytest

from openseer_core.errors import DriverFencedError
from openseer_core.numbers import base_of
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.messages import Delta, WriteOutcome
from openseer_core.weights.publish import Publish, Source
from openseer_core.weights.transaction import begin
from openseer_store.connect import open_store
from openseer_store.port import FIRST_CURSOR, Store
from openseer_store.recent_writes import KEPT_BYTES, KEPT_SECONDS, Check, RecentWrites
from openseer_store.redis_link import RedisLink
from tests.store.builders import ANN, BOB, extend, finish, group, query, results, tokens
from tests.store.rolled_back import forgetful_redis

pytestmark = pytest.mark.redis


async def numbers(store: Store, boot: str) -> dict[str, int]:
    """One number of each kind that a store issues."""
    batch, _ = await store.open_batch(OpenBatch("v1", "{}"))
    await store.submit([group("a", 1, batch=batch.number)])
    [claim] = [claim for claim in await store.claim(ANN, query()) if claim.request.group.batch == batch.number]
    await store.complete(ANN, [finish(claim, 3)])
    entries = await store.results(batch.number, FIRST_CURSOR, 10)
    present = await store.fleet_spec()
    fleet_spec = begin(present, Publish(version=f"of-{boot}", source=Source(path="/w"), mode="abort"), (), 0.0)
    assert await store.swap_fleet_spec(fleet_spec)
    kept = await store.fleet_spec()
    assert kept.transaction is not None
    return {
        "batch": batch.number,
        "fence": claim.fence,
        "cursor": entries[-1].cursor,
        "driver": await store.acquire_driver(boot),
        "revision": kept.revision,
        "transaction": kept.transaction.id,
    }


async def test_no_number_is_issued_twice_by_a_store_that_lost_its_last_writes(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store = await open_store(redis.url, "job")
        redis.save()
        first = await numbers(store, "one")
        epoch = store.epoch
        fence = base_of(epoch) + 1
        assert first == {"batch": 1, "fence": fence, "cursor": 2, "driver": fence, "revision": 1, "transaction": 1}
        await redis.roll_back()
        second = await numbers(store, "two")
        assert store.epoch > epoch
        assert min(second.values()) > max(first.values())
        await redis.roll_back()  # the lost data include its second epoch
        third = await numbers(store, "three")
        assert min(third.values()) > max(second.values())
        await store.close()


async def test_fences_from_before_the_loss_of_all_data_are_refused(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        redis.save()
        old = await open_store(redis.url, "job")
        old_driver = await old.acquire_driver("old")
        await old.submit([group("a", 1)], old_driver)
        [held] = await old.claim(ANN, query())
        await redis.roll_back()
        new = await open_store(redis.url, "job")  # this client does not know the earlier epoch
        new_driver = await new.acquire_driver("new")
        await new.submit([group("a", 1)], new_driver)
        [claim] = await new.claim(BOB, query())
        for offset in (0, 3):
            reply = await extend(old, ANN, [Delta(held.request, held.fence, offset, tokens(900, 3))])
            assert reply.replies[0].outcome is WriteOutcome.LOST
        await new.complete(BOB, [finish(claim, 3)])
        assert [result.tokens for result in await results(new)] == [tokens(0, 3)]
        with pytest.raises(DriverFencedError):
            await old.acknowledge(0, 1, old_driver)
        with pytest.raises(DriverFencedError):
            await old.acquire_driver("old", old_driver)
        batch, _ = await old.open_batch(OpenBatch("v1", "{}"))
        assert batch.number > base_of(new.epoch)  # a client has reported the earlier epoch by now
        await old.close()
        await new.close()


async def test_numbers_are_not_issued_again_after_all_data_were_deleted(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store = await open_store(redis.url, "job")
        first = await numbers(store, "one")
        link = RedisLink(redis.url, "{other}")
        await link.command("FLUSHALL")
        await link.close()
        assert min((await numbers(store, "two")).values()) > max(first.values())
        await store.close()


async def test_a_lost_epoch_is_not_used_again_if_a_client_knows_it(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store = await open_store(redis.url, "job")
        redis.save()
        await store.purge()
        known = store.epoch
        await redis.roll_back()
        await store.now()
        assert store.epoch > known
        await store.close()


async def test_entries_after_lost_ones_are_after_a_readers_cursor(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store = await open_store(redis.url, "job")
        await store.submit([group("a", 4)])
        redis.save()
        claims = await store.claim(ANN, query(slots=2))
        await store.complete(ANN, [finish(claim, 3) for claim in claims])
        [*_, last] = await store.results(0, FIRST_CURSOR, 10)
        await redis.roll_back()
        again = await store.claim(ANN, query())
        assert len(again) == 4
        await store.complete(ANN, [finish(claim, 3) for claim in again])
        later = await store.results(0, last.cursor, 10)
        assert len(later) == 5  # four results and the group's end: an earlier cursor hides none
        await store.close()


async def test_a_repeated_swap_of_the_fleet_spec_succeeds_and_changes_nothing(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store = await open_store(redis.url, "job")
        held = (await store.fleet_spec()).changed(held=True)
        assert await store.swap_fleet_spec(held)
        assert await store.swap_fleet_spec(held)
        assert not await store.swap_fleet_spec(held.model_copy(update={"held": False}))
        await store.close()


async def test_a_client_repeats_the_writes_that_the_store_lost(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store = await open_store(redis.url, "job", tells_again=True)
        redis.save()
        batch, _ = await store.open_batch(OpenBatch("v1", '{"a": 1}', "key"))
        await store.submit([group("a", 2, batch=batch.number)])
        await store.seal(batch.number)
        assert await store.swap_fleet_spec((await store.fleet_spec()).changed(held=True))
        served = (await store.fleet_spec()).changed(version="v1", held=True)
        assert await store.swap_fleet_spec(served)
        await redis.roll_back()
        again = await store.batch(batch.number)
        assert again is not None
        assert (again.spec, again.progress.requests, again.progress.sealed) == ('{"a": 1}', 2, True)
        assert (await store.open_batch(OpenBatch("v9", "{}", "key")))[0].number == batch.number
        fleet_spec = await store.fleet_spec()
        assert (fleet_spec.version, fleet_spec.held, fleet_spec.revision > served.revision) == ("v1", True, True)
        assert await store.swap_fleet_spec(fleet_spec.changed(held=False))
        await store.close()


async def test_a_repeated_write_does_not_undo_a_later_one(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as redis:
        store, other = [await open_store(redis.url, "job", tells_again=True) for _ in range(2)]
        redis.save()
        assert await store.swap_fleet_spec((await store.fleet_spec()).changed(version="old"))
        await redis.roll_back()
        assert await other.swap_fleet_spec((await other.fleet_spec()).changed(version="new"))
        assert (await store.fleet_spec()).version == "new"
        await store.close()
        await other.close()


def test_recent_writes_are_kept_by_their_age_and_size() -> None:
    seconds = [0.0]
    writes = RecentWrites(lambda: seconds[0])

    async def call(_: Check) -> None: ...

    def kept() -> str:
        return "".join(write.verb for write in writes.writes())

    writes.note("a", 1, call)
    seconds[0] = KEPT_SECONDS + 1.0
    assert kept() == "a"  # an outage of any length loses none
    writes.drop_old()
    assert kept() == ""  # while the server answers, old writes are dropped, even without new ones
    writes.note("b", 1, call)
    writes.note("c", KEPT_BYTES - 1, call)
    assert kept() == "bc"
    writes.note("d", 1, call)
    assert kept() == "cd"
