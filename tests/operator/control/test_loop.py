"""The loop reconciles each job at the right time, and never twice at once."""

import asyncio
import functools
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from openseer_core.errors import StoreUnavailableError
from openseer_operator.control.loop import CONCURRENT_NEW, CONCURRENT_RECONCILES, FIRST_BACKOFF_SECONDS, Loop, Reconcile
from openseer_operator.objects.reading import JobKey
from openseer_worker.scripted.virtual_time import run_virtual

A, B = ("n", "a"), ("n", "b")


@asynccontextmanager
async def running(
    reconcile: Reconcile, report: Callable[[float, float, bool], None] = lambda waited, seconds, failed: None
) -> AsyncGenerator[Loop]:
    loop = Loop(reconcile, report, clock=asyncio.get_running_loop().time)
    task = asyncio.create_task(loop.run())
    yield loop
    loop.stop()
    await asyncio.wait_for(task, 60.0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not true():
            await asyncio.sleep(0.005)


def on_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs the test on an event loop whose time advances only while all tasks wait."""

    @functools.wraps(test)
    def run() -> None:
        run_virtual(test())

    del run.__wrapped__  # the wrapper is no coroutine function
    return run


async def test_repeated_requests_for_a_job_give_one_reconcile_step() -> None:
    passes = Counter[JobKey]()

    async def reconcile(key: JobKey) -> None:
        passes[key] += 1

    async with running(reconcile) as loop:
        for _ in range(10):
            loop.add(A)
        loop.add(B)
        await until(lambda: passes[B] == 1)
    assert passes == {A: 1, B: 1}


async def test_a_job_changed_during_its_step_is_reconciled_again_afterwards() -> None:
    at_once, most, passes = 0, 0, 0
    go_on = asyncio.Event()

    async def reconcile(_: JobKey) -> None:
        nonlocal at_once, most, passes
        passes += 1
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1

    async with running(reconcile) as loop:
        loop.add(A)
        await until(lambda: passes == 1)
        for _ in range(5):
            loop.add(A)
        assert passes == 1
        go_on.set()
        await until(lambda: passes == 2)
        await asyncio.sleep(0.05)
    assert (passes, most) == (2, 1)


async def test_running_jobs_precede_new_ones_of_which_few_run_at_once() -> None:
    begun: list[JobKey] = []
    go_on = asyncio.Event()

    async def reconcile(key: JobKey) -> None:
        begun.append(key)
        await go_on.wait()

    new = [("new", str(n)) for n in range(2 * CONCURRENT_RECONCILES)]
    loop = Loop(reconcile, lambda waited, seconds, failed: None, lambda key: key[0] == "new")
    for key in (*new, A, B):
        loop.add(key)
    task = asyncio.create_task(loop.run())
    await until(lambda: len(begun) == 2 + CONCURRENT_NEW)
    await asyncio.sleep(0.05)
    assert begun == [A, B, *new[:CONCURRENT_NEW]]
    assert loop.depth == len(new) - CONCURRENT_NEW
    go_on.set()
    await until(lambda: len(begun) == 2 + len(new))
    loop.stop()
    await asyncio.wait_for(task, 60.0)


async def test_the_number_of_concurrent_reconcile_steps_is_limited() -> None:
    at_once, most, done = 0, 0, 0
    go_on = asyncio.Event()

    async def reconcile(_: JobKey) -> None:
        nonlocal at_once, most, done
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        await asyncio.sleep(0)
        at_once -= 1
        done += 1

    async with running(reconcile) as loop:
        for number in range(4 * CONCURRENT_RECONCILES):
            loop.add(("n", str(number)))
        await until(lambda: at_once == CONCURRENT_RECONCILES)
        await asyncio.sleep(0.05)
        go_on.set()
        await until(lambda: done == 4 * CONCURRENT_RECONCILES)
    assert most == CONCURRENT_RECONCILES


@on_virtual_time
async def test_a_failed_reconcile_step_is_repeated_with_growing_pauses() -> None:
    times: list[float] = []
    outcomes: list[bool] = []

    async def reconcile(_: JobKey) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise StoreUnavailableError("down")

    async with running(reconcile, lambda waited, seconds, failed: outcomes.append(failed)) as loop:
        loop.add(A)
        await until(lambda: len(outcomes) == 4)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert outcomes == [True, True, True, False]
    # Each pause is drawn between half of its limit and its limit; the limit doubles.
    for most, pause in zip((FIRST_BACKOFF_SECONDS * 2**n for n in range(3)), pauses, strict=True):
        assert 0.5 * most <= pause <= most


async def test_an_unexpected_error_stops_no_job() -> None:
    passes = Counter[JobKey]()

    async def reconcile(key: JobKey) -> None:
        passes[key] += 1
        if key == A and passes[A] == 1:
            raise ValueError("a defect")

    async with running(reconcile) as loop:
        loop.add(A)
        loop.add(B)
        await until(lambda: passes == {A: 2, B: 1})


@on_virtual_time
async def test_a_job_is_reconciled_at_its_time_without_any_event() -> None:
    passes = 0

    async def reconcile(_: JobKey) -> float | None:
        nonlocal passes
        passes += 1
        return 0.02 if passes < 3 else None

    async with running(reconcile) as loop:
        loop.add(A)
        await until(lambda: passes == 3)
        await asyncio.sleep(0.1)
    assert passes == 3


@on_virtual_time
async def test_a_new_time_replaces_the_old_one() -> None:
    passes = 0

    async def reconcile(_: JobKey) -> float | None:
        nonlocal passes
        passes += 1
        return 0.1 if passes == 1 else None

    async with running(reconcile) as loop:
        loop.add(A)
        await until(lambda: passes == 1)
        loop.add(A)
        await until(lambda: passes == 2)
        await asyncio.sleep(0.2)
    assert passes == 2


@on_virtual_time
async def test_the_earlier_timer_fires_first_in_any_order_of_setting() -> None:
    order: list[JobKey] = []
    delays = {A: 0.15, B: 0.05}

    async def reconcile(key: JobKey) -> float | None:
        order.append(key)
        return delays.pop(key, None)

    async with running(reconcile) as loop:
        loop.add(A)
        loop.add(B)
        await until(lambda: len(order) == 4)
    assert order == [A, B, B, A]


@on_virtual_time
async def test_a_deleted_job_is_not_reconciled_at_its_time() -> None:
    passes = 0

    async def reconcile(_: JobKey) -> float | None:
        nonlocal passes
        passes += 1
        return 0.05

    async with running(reconcile) as loop:
        loop.add(A)
        await until(lambda: passes == 1)
        await asyncio.sleep(0.01)
        loop.forget(A)
        await asyncio.sleep(0.15)
    assert passes == 1


async def test_outdated_timers_are_removed() -> None:
    passes = 0

    async def reconcile(_: JobKey) -> float | None:
        nonlocal passes
        passes += 1
        return 3600.0

    async with running(reconcile) as loop:
        for wanted in range(1, 500):
            loop.add(A)
            await until(lambda wanted=wanted: passes == wanted)
        assert loop.timers < 100


async def test_lag_grows_during_a_hanging_step_and_is_zero_at_rest() -> None:
    go_on = asyncio.Event()

    async def reconcile(_: JobKey) -> None:
        await go_on.wait()

    async with running(reconcile) as loop:
        assert loop.lag == 0.0
        loop.add(A)
        await until(lambda: loop.lag >= 0.1)
        go_on.set()
        await until(lambda: loop.lag == 0.0)


async def test_stopping_finishes_the_running_step_and_begins_no_other() -> None:
    begun: list[JobKey] = []
    ended: list[JobKey] = []

    async def reconcile(key: JobKey) -> None:
        begun.append(key)
        await asyncio.sleep(0.1)
        ended.append(key)

    loop = Loop(reconcile, lambda waited, seconds, failed: None)
    task = asyncio.create_task(loop.run())
    loop.add(A)
    await until(lambda: begun == [A])
    loop.stop()
    loop.add(B)
    await asyncio.wait_for(task, 60.0)
    assert (begun, ended) == ([A], [A])
