"""In the tail, responses go to a free worker that is much faster: paces and claims are the same on every store."""

import pytest

from openseer_core.ids import WorkerId
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.port import Store
from tests.store.builders import ANN, BOB, Clock, extend, group, names, query, wait

FAST, FASTER = WorkerId("fast", "1"), WorkerId("faster", "1")


async def beat(store: Store, worker: WorkerId, pace: float, limit: int = 1000, state: str = "busy") -> None:
    metrics = WorkerMetrics({"free_pace": pace, "worker_tokens": limit})
    await store.heartbeat(worker, Heartbeat(WorkerState(state), metrics))


async def free_pace(store: Store, worker: WorkerId) -> float:
    return (await extend(store, worker, [])).fleet_load.free_pace


async def test_the_free_pace_is_that_of_the_fastest_other_free_worker(store: Store) -> None:
    for worker, pace in ((ANN, 50.0), (FAST, 40.5), (BOB, 0.0)):
        await beat(store, worker, pace)
    assert (await free_pace(store, BOB), await free_pace(store, ANN), await free_pace(store, FAST)) == (
        50.0,
        40.5,
        50.0,
    )


async def test_a_free_worker_that_takes_only_shorter_requests_does_not_count(store: Store) -> None:
    await beat(store, ANN, 0.0, limit=900)
    await beat(store, FAST, 50.0, limit=800)
    assert await free_pace(store, ANN) == 0
    await beat(store, FASTER, 40.0, limit=900)
    assert await free_pace(store, ANN) == 40


async def test_a_free_worker_that_serves_other_versions_does_not_count(store: Store) -> None:
    await store.claim(FAST, query(version="v2"))
    await beat(store, FAST, 50.0)
    assert await free_pace(store, ANN) == 0
    await store.claim(FASTER, query(version="v1", adapters=("a",)))
    await beat(store, FASTER, 60.0)
    assert await free_pace(store, ANN) == 0
    await store.claim(FAST, query(version="v1"))
    assert await free_pace(store, ANN) == 50


@pytest.mark.parametrize("pace", [float("nan"), float("inf"), -1.0])
async def test_an_invalid_pace_is_not_reported(store: Store, pace: float) -> None:
    await beat(store, FAST, pace)
    assert await free_pace(store, ANN) == 0


async def test_a_claiming_draining_or_silent_worker_is_not_free(store: Store, clock: Clock) -> None:
    for worker, pace in ((FAST, 40.0), (FASTER, 50.0)):
        await beat(store, worker, pace)
    await beat(store, FASTER, 50.0, state="draining")
    assert await free_pace(store, ANN) == 40
    await store.claim(FAST, query())
    assert await free_pace(store, ANN) == 40  # it found nothing
    await store.submit([group("a", 1)])
    await store.claim(FAST, query())
    assert await free_pace(store, ANN) == 0
    await beat(store, FAST, 40.0)
    await wait(store, clock, 11)
    await store.claim(BOB, query(0))
    assert await free_pace(store, ANN) == 0


@pytest.mark.parametrize(("pace", "claimed"), [(39.9, []), (40.0, ["a/0"]), (0.0, ["a/0"])])
async def test_a_slow_worker_leaves_the_tail_to_a_faster_one(store: Store, pace: float, claimed: list[str]) -> None:
    await store.submit([group("a", 1)])
    await beat(store, FAST, 50.0)
    assert names(await store.claim(ANN, query(pace=pace))) == claimed


@pytest.mark.parametrize(("pace", "claimed"), [(50.1, 1), (50.0, 0), (0.0, 0)])
async def test_a_fast_worker_takes_more_than_its_share_of_the_tail(store: Store, pace: float, claimed: int) -> None:
    await store.submit([group("a", 3)])
    assert len(await store.claim(ANN, query(3))) == 3
    await beat(store, BOB, 40.0)
    await store.submit([group("b", 1)])
    assert len(await store.claim(ANN, query(slack=0, pace=pace))) == claimed


async def test_more_requests_than_a_share_also_go_to_slow_workers(store: Store) -> None:
    await store.submit([group("a", 3)])
    await beat(store, FAST, 50.0)
    assert len(await store.claim(ANN, query(pace=20.0))) == 3


async def test_a_slow_worker_serves_its_own_lane(store: Store) -> None:
    await store.submit([group("a", lanes=("0",), size=1)])
    await beat(store, FAST, 50.0)
    assert names(await store.claim(ANN, query(lanes=("0",), pace=20.0))) == ["a/0"]
