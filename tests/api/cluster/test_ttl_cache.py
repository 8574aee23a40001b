"""The TTL cache: one fetch per key, kept for its lifetime, with a limited number of entries."""

import asyncio

import pytest

from openseer_api.cluster.ttl_cache import TTLCache


class Oracle:
    """A source of values that counts its calls."""

    def __init__(self) -> None:
        self.asked = 0
        self.free = asyncio.Event()
        self.broken = False

    async def __call__(self) -> int:
        self.asked += 1
        await self.free.wait()
        if self.broken:
            raise OSError("away")
        return self.asked


async def test_concurrent_readers_share_one_call_even_if_its_caller_is_cancelled() -> None:
    oracle, cache = Oracle(), TTLCache[str, int](lambda _: 60.0, 8)
    tasks = [asyncio.create_task(cache.get("a", oracle)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    oracle.free.set()
    assert await asyncio.gather(*tasks[1:]) == [1] * 4
    assert await cache.get("a", oracle) == 1
    assert oracle.asked == 1


async def test_an_expired_entry_is_fetched_again() -> None:
    seconds = [0.05, 60.0, 60.0]
    oracle, cache = Oracle(), TTLCache[str, int](lambda _: seconds.pop(0), 8)
    oracle.free.set()
    assert await cache.get("a", oracle) == 1
    await asyncio.sleep(0.06)
    assert await cache.get("a", oracle) == 2
    cache.put("a", 7)
    assert await cache.get("a", oracle) == 7


async def test_a_failure_is_raised_for_all_waiters_and_not_cached() -> None:
    oracle, cache = Oracle(), TTLCache[str, int](lambda _: 60.0, 8)
    oracle.broken = True
    tasks = [asyncio.create_task(cache.get("a", oracle)) for _ in range(3)]
    await asyncio.sleep(0)
    oracle.free.set()
    assert [type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)] == [OSError] * 3
    oracle.broken = False
    assert await cache.get("a", oracle) == 2


async def test_the_least_recently_used_entry_is_evicted() -> None:
    oracle, cache = Oracle(), TTLCache[int, int](lambda _: 60.0, 3)
    oracle.free.set()
    for key in (0, 1, 2, 0, 3):
        await cache.get(key, oracle)
    assert len(cache) == 3
    before = oracle.asked
    await cache.get(0, oracle)
    assert oracle.asked == before
    await cache.get(1, oracle)
    assert oracle.asked == before + 1


async def test_a_failure_after_all_waiters_left_raises_nothing() -> None:
    oracle, cache = Oracle(), TTLCache[str, int](lambda _: 60.0, 8)
    oracle.broken = True
    task = asyncio.create_task(cache.get("a", oracle))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    oracle.free.set()
    await asyncio.sleep(0.01)
