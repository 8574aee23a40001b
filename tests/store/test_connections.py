"""The number of connections of a store, and the cost of a restart of the server."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from os import kill
from pathlib import Path

import pytest

from openseer_store import redis_pool
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import FIRST_CURSOR
from openseer_store.redis_link import RedisLink
from tests.store.builders import ANN, finish, group, query

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def server_behind(link: Path, folder: Path) -> AsyncGenerator[EmbeddedRedis]:
    """A server at `link`/redis.sock, like the one before it."""
    server = EmbeddedRedis(folder)
    async with server as url:
        link.unlink(missing_ok=True)
        link.symlink_to(Path(url.removeprefix("unix://")).parent)
        yield server


async def test_a_restart_costs_one_retry_and_not_one_per_idle_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_pool, "CALLS", 80)
    async with server_behind(tmp_path / "s", tmp_path / "store") as first:
        link = RedisLink(f"unix://{tmp_path}/s/redis.sock", "{any}")
        await asyncio.gather(*(link.command("PING") for _ in range(80)))
        assert len((await link.command("CLIENT", "LIST")).splitlines()) == 80
        assert first.pid is not None
        kill(first.pid, signal.SIGKILL)
    async with server_behind(tmp_path / "s", tmp_path / "store"):
        pauses: list[float] = []
        monkeypatch.setattr("asyncio.sleep", _noted(pauses))
        assert await link.command("PING") == b"PONG"
        monkeypatch.undo()
        assert len(pauses) == 1
        await link.close()


async def test_calls_follow_the_stores_name_when_its_server_becomes_a_replica(tmp_path: Path) -> None:
    old = EmbeddedRedis(tmp_path / "old")
    async with old as url:
        place = tmp_path / "s"
        place.symlink_to(Path(url.removeprefix("unix://")).parent)
        store = await open_store(f"unix://{place}/redis.sock", "job")
        await asyncio.gather(*(store.submit([group(f"g{number}", 1)]) for number in range(4)))
        epoch, link = store.epoch, RedisLink(url, "{other}")
        await link.command("REPLICAOF", "127.0.0.1", 1)
        async with server_behind(place, tmp_path / "new"):
            assert await store.submit([group("a", 1)]) == 1
            assert store.epoch > epoch
            assert len(await store.claim(ANN, query())) == 1
            await store.close()
        await link.close()


def _noted(pauses: list[float]) -> Callable[[float], Awaitable[None]]:
    """A sleep that takes no time and is recorded."""
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    return note


async def test_calls_share_a_bounded_number_of_connections(redis_url: str) -> None:
    link = RedisLink(redis_url, "{any}")
    replies = await asyncio.gather(*(link.command("CLIENT", "ID") for _ in range(10 * redis_pool.CALLS)))
    assert len(set(replies)) <= redis_pool.CALLS
    await link.close()


async def test_readers_that_wait_for_results_do_not_delay_other_calls(redis_url: str, job: str) -> None:
    store = await open_store(redis_url, job)
    readers = [
        asyncio.create_task(store.results(0, FIRST_CURSOR, 1, wait_seconds=3600.0)) for _ in range(redis_pool.CALLS + 8)
    ]
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    assert not any(reader.done() for reader in readers)
    await store.complete(ANN, [finish(claim, 1)])
    assert [len(page) for page in await asyncio.gather(*readers)] == [1] * len(readers)
    await store.close()
