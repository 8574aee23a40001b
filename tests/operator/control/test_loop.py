"""The loop looks at each job when it should, and never twice at once."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from openseer_core.errors import StoreUnavailableError
from openseer_operator.control.loop import FIRST_BACKOFF_SECONDS, LOOKS_AT_ONCE, NEW_AT_ONCE, Look, Loop
from openseer_operator.objects.reading import Key

A, B = ("n", "a"), ("n", "b")


@asynccontextmanager
async def running(
    look: Look, told: Callable[[float, float, bool], None] = lambda waited, seconds, failed: None
) -> AsyncGenerator[Loop]:
    loop = Loop(look, told)
    task = asyncio.create_task(loop.run())
    yield loop
    loop.stop()
    await asyncio.wait_for(task, 5.0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_job_that_is_asked_for_often_is_looked_at_once() -> None:
    looks = Counter[Key]()

    async def look(key: Key) -> None:
        looks[key] += 1

    async with running(look) as loop:
        for _ in range(10):
            loop.add(A)
        loop.add(B)
        await until(lambda: looks[B] == 1)
    assert looks == {A: 1, B: 1}


async def test_a_job_that_changes_during_its_look_is_looked_at_again_and_never_twice_at_once() -> None:
    at_once, most, looks = 0, 0, 0
    go_on = asyncio.Event()

    async def look(_: Key) -> None:
        nonlocal at_once, most, looks
        looks += 1
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1

    async with running(look) as loop:
        loop.add(A)
        await until(lambda: looks == 1)
        for _ in range(5):
            loop.add(A)
        assert looks == 1
        go_on.set()
        await until(lambda: looks == 2)
        await asyncio.sleep(0.05)
    assert (looks, most) == (2, 1)


async def test_jobs_that_run_come_before_new_ones_of_which_few_are_looked_at_at_once() -> None:
    begun: list[Key] = []
    go_on = asyncio.Event()

    async def look(key: Key) -> None:
        begun.append(key)
        await go_on.wait()

    new = [("new", str(n)) for n in range(2 * LOOKS_AT_ONCE)]
    loop = Loop(look, lambda waited, seconds, failed: None, lambda key: key[0] == "new")
    for key in (*new, A, B):
        loop.add(key)
    task = asyncio.create_task(loop.run())
    await until(lambda: len(begun) == 2 + NEW_AT_ONCE)
    await asyncio.sleep(0.05)
    assert begun == [A, B, *new[:NEW_AT_ONCE]]
    assert loop.depth == len(new) - NEW_AT_ONCE
    go_on.set()
    await until(lambda: len(begun) == 2 + len(new))
    loop.stop()
    await asyncio.wait_for(task, 5.0)


async def test_many_jobs_are_looked_at_at_once_but_not_all() -> None:
    at_once, most, done = 0, 0, 0

    async def look(_: Key) -> None:
        nonlocal at_once, most, done
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.005)
        at_once -= 1
        done += 1

    async with running(look) as loop:
        for number in range(4 * LOOKS_AT_ONCE):
            loop.add(("n", str(number)))
        await until(lambda: done == 4 * LOOKS_AT_ONCE)
    assert most == LOOKS_AT_ONCE


async def test_a_look_that_fails_is_repeated_after_a_pause_that_grows() -> None:
    times: list[float] = []
    outcomes: list[bool] = []

    async def look(_: Key) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise StoreUnavailableError("down")

    async with running(look, lambda waited, seconds, failed: outcomes.append(failed)) as loop:
        loop.add(A)
        await until(lambda: len(outcomes) == 4)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert outcomes == [True, True, True, False]
    # Each pause is drawn between half of its most and its most, which doubles.
    for most, pause in zip((FIRST_BACKOFF_SECONDS * 2**n for n in range(3)), pauses, strict=True):
        assert 0.5 * most <= pause <= most + 0.5


async def test_an_error_nobody_foresaw_stops_neither_its_job_nor_the_others() -> None:
    looks = Counter[Key]()

    async def look(key: Key) -> None:
        looks[key] += 1
        if key == A and looks[A] == 1:
            raise ValueError("a defect")

    async with running(look) as loop:
        loop.add(A)
        loop.add(B)
        await until(lambda: looks == {A: 2, B: 1})


async def test_a_job_is_looked_at_when_its_time_has_come_even_if_nothing_happens() -> None:
    looks = 0

    async def look(_: Key) -> float | None:
        nonlocal looks
        looks += 1
        return 0.02 if looks < 3 else None

    async with running(look) as loop:
        loop.add(A)
        await until(lambda: looks == 3)
        await asyncio.sleep(0.1)
    assert looks == 3


async def test_a_new_time_takes_the_place_of_the_old_one() -> None:
    looks = 0

    async def look(_: Key) -> float | None:
        nonlocal looks
        looks += 1
        return 0.1 if looks == 1 else None

    async with running(look) as loop:
        loop.add(A)
        await until(lambda: looks == 1)
        loop.add(A)
        await until(lambda: looks == 2)
        await asyncio.sleep(0.2)
    assert looks == 2


async def test_the_earlier_of_two_timers_rings_first_whichever_was_set_first() -> None:
    order: list[Key] = []
    delays = {A: 0.15, B: 0.05}

    async def look(key: Key) -> float | None:
        order.append(key)
        return delays.pop(key, None)

    async with running(look) as loop:
        loop.add(A)
        loop.add(B)
        await until(lambda: len(order) == 4)
    assert order == [A, B, B, A]


async def test_a_job_that_is_gone_is_not_looked_at_when_its_time_comes() -> None:
    looks = 0

    async def look(_: Key) -> float | None:
        nonlocal looks
        looks += 1
        return 0.05

    async with running(look) as loop:
        loop.add(A)
        await until(lambda: looks == 1)
        await asyncio.sleep(0.01)
        loop.forget(A)
        await asyncio.sleep(0.15)
    assert looks == 1


async def test_outdated_timers_are_cleared_away() -> None:
    looks = 0

    async def look(_: Key) -> float | None:
        nonlocal looks
        looks += 1
        return 3600.0

    async with running(look) as loop:
        for wanted in range(1, 500):
            loop.add(A)
            await until(lambda wanted=wanted: looks == wanted)
        assert loop.timers < 100


async def test_lag_grows_while_a_look_hangs_and_is_zero_at_rest() -> None:
    go_on = asyncio.Event()

    async def look(_: Key) -> None:
        await go_on.wait()

    async with running(look) as loop:
        assert loop.lag == 0.0
        loop.add(A)
        await asyncio.sleep(0.1)
        assert loop.lag >= 0.09
        go_on.set()
        await until(lambda: loop.lag == 0.0)


async def test_stopping_lets_a_look_finish_and_begins_no_other() -> None:
    begun: list[Key] = []
    ended: list[Key] = []

    async def look(key: Key) -> None:
        begun.append(key)
        await asyncio.sleep(0.1)
        ended.append(key)

    loop = Loop(look, lambda waited, seconds, failed: None)
    task = asyncio.create_task(loop.run())
    loop.add(A)
    await until(lambda: begun == [A])
    loop.stop()
    loop.add(B)
    await asyncio.wait_for(task, 5.0)
    assert (begun, ended) == ([A], [A])
