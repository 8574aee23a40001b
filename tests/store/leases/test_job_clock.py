"""The job's clock: neither an outage nor a step of the wall clock is taken for a death; the same on every store."""

import math
from pathlib import Path

import pytest

from openseer_core.model.job_clock import CLOCK_STEP_SECONDS
from openseer_core.queue.states import State, Status
from openseer_core.worker.heartbeat import FRESH_SECONDS, Heartbeat, WorkerState
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store
from openseer_store.redis_store import RedisStore
from tests.store.builders import ANN, BOB, Clock, delta, extend, finish, group, query, results, wait

LEASE_SECONDS = 10.0


async def test_an_outage_longer_than_the_lease_costs_no_lease(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 4)])
    claims = await store.claim(ANN, query(4))
    clock.seconds += 12
    assert await store.claim(BOB, query()) == []
    await extend(store, ANN, [delta(claim, 1) for claim in claims])
    await wait(store, clock, LEASE_SECONDS - 1)
    replies = await store.complete(ANN, [finish(claim, 2) for claim in claims])
    assert [reply.have for reply in replies] == [2] * 4


async def test_leases_of_a_worker_that_died_in_an_outage_expire_afterwards(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 4)])
    await store.claim(ANN, query(4))
    clock.seconds += 3600
    assert await store.claim(BOB, query()) == []
    await wait(store, clock, LEASE_SECONDS)
    assert len(await store.claim(BOB, query())) == 4


async def test_pauses_between_calls_keep_no_dead_workers_lease(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 4)])
    await store.claim(ANN, query(4))
    for _ in range(4):
        clock.seconds += CLOCK_STEP_SECONDS + 0.5
        assert await store.claim(BOB, query()) == []
        await wait(store, clock, 2.0)
    assert len(await store.claim(BOB, query())) == 4


async def test_after_a_stall_no_lease_expires_for_the_length_of_the_stall(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    await store.claim(ANN, query())
    await wait(store, clock, LEASE_SECONDS - 1)
    clock.seconds += 6.0
    for _ in range(math.ceil(6.0 - CLOCK_STEP_SECONDS)):
        assert await store.claim(BOB, query()) == []
        await wait(store, clock, 1.0)
    assert len(await store.claim(BOB, query())) == 1


async def test_a_clock_that_goes_back_an_hour_keeps_no_dead_workers_lease(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    await store.claim(ANN, query())
    clock.seconds -= 3600
    assert await store.claim(BOB, query()) == []
    await wait(store, clock, LEASE_SECONDS)
    assert len(await store.claim(BOB, query())) == 1


async def test_steps_of_the_clock_end_no_request(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 8)])
    claims = await store.claim(ANN, query(8))
    for _ in range(8):
        clock.seconds += 11
        await store.claim(BOB, query(max_losses=2))
        await extend(store, ANN, [delta(claim, 1) for claim in claims])
    await store.complete(ANN, [finish(claim, 2) for claim in claims])
    assert [result.status for result in await results(store)] == [Status.OK] * 8


async def test_the_jobs_clock_never_goes_back_and_its_steps_are_limited(store: Store, clock: Clock) -> None:
    start = await store.now()
    assert start == clock.seconds
    clock.seconds -= 0.5
    assert await store.now() == start
    clock.seconds += 100
    assert await store.now() == start + CLOCK_STEP_SECONDS
    clock.seconds += 1
    assert await store.now() == start + CLOCK_STEP_SECONDS + 1


async def test_after_an_outage_every_worker_counts_until_it_had_time_to_call(store: Store, clock: Clock) -> None:
    idle = Heartbeat(WorkerState.IDLE)
    await store.claim(ANN, query())
    await store.heartbeat(ANN, idle)
    await store.heartbeat(BOB, idle)
    clock.seconds += 100
    await store.claim(ANN, query())
    now = await store.now()
    assert all(worker.works(now) for worker in await store.workers())
    assert (await extend(store, ANN, [])).fleet_load.workers == 2
    await wait(store, clock, LEASE_SECONDS + FRESH_SECONDS)
    await store.claim(ANN, query())
    assert (await extend(store, ANN, [])).fleet_load.workers == 1


@pytest.mark.redis
async def test_a_restarted_server_gives_every_worker_a_lease_of_time(tmp_path: Path) -> None:
    clock = Clock()
    async with EmbeddedRedis(tmp_path) as url:
        store = RedisStore(url, "job", clock=clock)
        await store.submit([group("a", 1)])
        [claim] = await store.claim(ANN, query())
        await wait(store, clock, LEASE_SECONDS - 1)
        await store.close()
    clock.seconds += 1
    async with EmbeddedRedis(tmp_path) as url:
        store = RedisStore(url, "job", clock=clock)
        assert await store.reap(3) == 0
        await wait(store, clock, LEASE_SECONDS - 1)
        assert (await store.record(claim.request)).state is State.LEASED
        await wait(store, clock, 1)
        assert await store.reap(3) == 1
        await store.close()
