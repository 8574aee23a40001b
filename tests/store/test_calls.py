"""Workers are called when requests wait: the same on every store."""

import asyncio

import pytest

from openseer_core.ids import PARKED_BATCH, GroupId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import SHARED_LANE
from openseer_store.port import Store
from tests.store.builders import ANN, BOB, VERSION, Clock, delta, finish, group, query, request, wait

NOT_LONG = 0.01
LONG = 240.0


async def called(store: Store, version: str = VERSION, lane: str = SHARED_LANE) -> int:
    """The number of workers that are called when they wait one after the other."""
    count = 0
    while await store.wait_for_work(version, (lane,), NOT_LONG):
        count += 1
    return count


async def test_two_workers_are_called_however_many_requests_arrive(store: Store) -> None:
    assert await called(store) == 0
    await store.submit([group("a", 16), group("b", 16)])
    assert await called(store) == 2
    assert await called(store) == 0


async def test_a_claim_calls_two_more_workers_only_if_requests_are_left(store: Store) -> None:
    await store.submit([group("a", 4)])
    assert await called(store) == 2
    await store.claim(ANN, query(1))
    assert await called(store) == 2
    await store.claim(BOB, query(3))
    assert await called(store) == 0


async def test_unused_calls_are_removed_with_the_requests(store: Store) -> None:
    await store.submit([group("a", 1)])
    await store.claim(ANN, query())
    assert await called(store) == 0


async def test_a_claim_without_a_fitting_request_calls_no_worker(store: Store) -> None:
    await store.submit([group("a", 2, prompt_tokens=64)])
    assert await called(store) == 2
    assert await store.claim(ANN, query(blocks=1)) == []
    assert await called(store) == 0


async def test_workers_are_called_by_version_and_lane(store: Store) -> None:
    await store.submit([group("a", lanes=("", "0"), version="v2")])
    assert [await called(store, "v2", lane) for lane in ("", "0", "1")] == [2, 2, 0]
    assert await called(store) == 0


@pytest.mark.parametrize("way", ["give_back", "reap", "go_on", "grow", "carry", "change_version"])
async def test_every_operation_that_queues_a_request_calls_workers(store: Store, clock: Clock, way: str) -> None:
    await store.open_batch(OpenBatch(VERSION, "{}", ""))
    spec = group("a", 1, batch=1)
    await store.submit([spec])
    [claim] = await store.claim(ANN, query())
    if way in ("go_on", "grow"):
        await store.complete(ANN, [finish(claim, 3)])
    assert await called(store) == 0
    match way:
        case "give_back":
            await store.give_back(ANN, [delta(claim, 1)])
        case "reap":
            await wait(store, clock, 11)
            await store.reap(3)
        case "go_on":
            await store.go_on(request("a/0", 1), 0, b"")
        case "grow":
            await store.grow(group("a", 2, batch=1), 1)
        case "carry":
            await store.carry([GroupId(1, "a")], PARKED_BATCH, VERSION)
            [parked] = await store.group_names(PARKED_BATCH, 0, 9)
            await store.carry([GroupId(PARKED_BATCH, parked)], 0, VERSION)
        case _:
            await store.change_version(1, "v2")
    assert await called(store, "v2" if way == "change_version" else VERSION) == 2


async def test_a_worker_that_waits_is_called_at_once(store: Store) -> None:
    waiting = asyncio.create_task(store.wait_for_work(VERSION, (SHARED_LANE,), LONG))
    await asyncio.sleep(0)
    await store.submit([group("a", 1)])
    async with asyncio.timeout(LONG / 2):
        assert await waiting
