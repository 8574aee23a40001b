"""Claims of workers with different limits of a request's length: the same on every store."""

from openseer_core.admission import ModelLimits
from openseer_core.queue import budgets
from openseer_core.worker.heartbeat import Heartbeat, WorkerState, reported_limits
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.port import Store
from tests.store.builders import ANN, BOB, Clock, delta, extend, group, names, query, wait

SMALL, LARGE = 128, 1000


def beat(limit: int, state: WorkerState = WorkerState.IDLE) -> Heartbeat:
    return Heartbeat(state, WorkerMetrics({"context_tokens": LARGE, "vocabulary": 300, "worker_tokens": limit}))


async def both(store: Store) -> None:
    """Registers ANN with the small limit and BOB with the large one."""
    await store.heartbeat(BOB, beat(LARGE))
    await store.heartbeat(ANN, beat(SMALL))


async def test_a_request_that_fits_only_a_larger_worker_is_left_to_it(store: Store) -> None:
    await both(store)
    await store.submit([group("exact", 1, prompt_tokens=SMALL), group("fits", 1, prompt_tokens=SMALL - 1)])
    assert names(await store.claim(ANN, query(context_tokens=SMALL))) == ["fits/0"]
    assert names(await store.claim(BOB, query(context_tokens=LARGE))) == ["exact/0"]


async def test_the_largest_worker_receives_requests_that_fit_none(store: Store) -> None:
    await both(store)
    await store.submit([group("huge", 1, prompt_tokens=LARGE)])
    assert not await store.claim(ANN, query(context_tokens=SMALL))
    assert names(await store.claim(BOB, query(context_tokens=LARGE, blocks=0))) == ["huge/0"]


async def test_the_next_largest_worker_ends_the_requests_that_fit_none(store: Store) -> None:
    await both(store)
    await store.submit([group("long", 1, prompt_tokens=400)])
    assert not await store.claim(ANN, query(context_tokens=SMALL))
    await store.deregister(BOB)
    assert names(await store.claim(ANN, query(context_tokens=SMALL))) == ["long/0"]


async def test_a_larger_worker_that_drains_is_not_waited_for(store: Store) -> None:
    await both(store)
    await store.submit([group("long", 1, prompt_tokens=400)])
    await store.heartbeat(BOB, beat(LARGE, WorkerState.DRAINING))
    assert names(await store.claim(ANN, query(context_tokens=SMALL))) == ["long/0"]


async def test_a_larger_worker_is_waited_for_until_it_is_silent(store: Store, clock: Clock) -> None:
    await both(store)
    await store.submit([group("long", 1, prompt_tokens=400)])
    await wait(store, clock, 9.0)
    assert not await store.claim(ANN, query(context_tokens=SMALL))
    await wait(store, clock, 2.0)
    assert names(await store.claim(ANN, query(context_tokens=SMALL))) == ["long/0"]


async def test_a_lane_that_one_worker_serves_leaves_nothing_to_larger_ones(store: Store) -> None:
    await both(store)
    await store.submit([group("long", lanes=("0",), prompt_tokens=400)])
    assert names(await store.claim(ANN, query(lanes=("0", ""), context_tokens=SMALL))) == ["long/0"]


async def test_requests_for_larger_workers_do_not_hide_those_behind_them(store: Store) -> None:
    await both(store)
    count = budgets.HEAD_WINDOW + 1
    long = [
        group(f"long{n:02d}", 1, prompt_tokens=tokens) for tokens in (SMALL, 400) for n in range(tokens, tokens + count)
    ]
    await store.submit([*long, group("short", 1, prompt_tokens=100)])
    assert names(await store.claim(ANN, query(context_tokens=SMALL))) == ["short/0"]


async def test_members_of_a_group_go_to_the_workers_that_they_fit(store: Store) -> None:
    await both(store)
    await store.submit([group("g", 3, prompt_tokens=100)])
    grown, *_ = await store.claim(BOB, query(1, context_tokens=LARGE))
    await store.give_back(BOB, [delta(grown, SMALL - 100)])
    assert names(await store.claim(ANN, query(context_tokens=SMALL))) == ["g/1", "g/2"]
    assert names(await store.claim(BOB, query(context_tokens=LARGE))) == ["g/0"]


async def test_a_suspect_for_a_larger_worker_is_left_to_it(store: Store) -> None:
    await both(store)
    await store.submit([group("g", 1, prompt_tokens=400)])
    for _ in range(2):
        [claim] = await store.claim(BOB, query(context_tokens=LARGE))
        await store.give_back(BOB, [delta(claim, 0)], lost=True)
    assert not await store.claim(ANN, query(context_tokens=SMALL))
    assert names(await store.claim(BOB, query(context_tokens=LARGE))) == ["g/0"]


async def test_the_share_of_a_worker_counts_workers_with_its_limit_or_more(store: Store) -> None:
    await both(store)
    await store.submit([group("g", 6, prompt_tokens=400)])
    claims = await store.claim(BOB, query(context_tokens=LARGE, slack=0))
    assert len(claims) == 6
    assert (await extend(store, BOB, [])).fleet_load.workers == 1
    assert (await extend(store, ANN, [])).fleet_load.workers == 2


async def test_a_worker_makes_no_room_for_requests_of_larger_ones(store: Store) -> None:
    await both(store)
    await store.submit([group("g", 1, prompt_tokens=400)])
    assert (await extend(store, ANN, [])).fleet_load.best_waiting == float("inf")
    assert (await extend(store, BOB, [])).fleet_load.best_waiting == 0.0


async def test_a_heartbeat_returns_the_limit_of_the_largest_worker(store: Store) -> None:
    assert (await store.heartbeat(ANN, beat(SMALL))).largest == SMALL
    await store.heartbeat(BOB, beat(LARGE))
    assert (await store.heartbeat(ANN, beat(SMALL))).largest == LARGE
    await store.deregister(BOB)
    assert (await store.heartbeat(ANN, beat(SMALL))).largest == SMALL


async def test_limits_of_workers_that_died_do_not_count_while_others_claim(store: Store, clock: Clock) -> None:
    async def limits() -> ModelLimits:
        return reported_limits(await store.workers(), await store.now())

    await both(store)
    assert await limits() == ModelLimits(LARGE, 300, LARGE)
    await wait(store, clock, 6.0)
    await store.heartbeat(ANN, beat(SMALL))
    await wait(store, clock, 6.0)
    assert await limits() == ModelLimits(LARGE, 300, SMALL)
    await wait(store, clock, 11.0)
    assert await limits() == ModelLimits(LARGE, 300, LARGE)  # no worker is fresh: all known ones count
