"""The event loop on virtual time."""

import asyncio
import math

import pytest

from openseer_worker.scripted import virtual_time
from openseer_worker.scripted.virtual_time import StuckError, run_virtual


def test_time_jumps_over_waits_and_keeps_their_order() -> None:
    seen: list[tuple[float, str]] = []

    async def sleeper(name: str, step: float, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(step)
            seen.append((asyncio.get_running_loop().time(), name))

    async def main() -> float:
        await asyncio.gather(sleeper("hour", 3600, 3), sleeper("day", 86400, 1))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 86400
    assert seen == [(3600, "hour"), (7200, "hour"), (10800, "hour"), (86400, "day")]


def test_time_outs_work_on_virtual_time() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50):
                await asyncio.Event().wait()

    run_virtual(main())


def test_a_wait_for_the_smallest_time_step_ends() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(2.0)
        due = math.nextafter(2.0, 3.0)
        for _ in range(10):
            if loop.time() >= due:
                return
            await asyncio.sleep(due - loop.time())
        pytest.fail("time does not advance")

    run_virtual(main())


def test_a_program_that_waits_without_a_timer_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "_STUCK_SECONDS", 0.05)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError):
        run_virtual(main())
