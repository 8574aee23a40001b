"""A purge of a job with live workers: meanwhile no write succeeds, and no key is left for the next job of the name."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openseer_core.errors import StoreUnavailableError
from openseer_store import redis_store
from openseer_store.connect import open_store
from openseer_store.keys import STORE, prefix
from openseer_store.port import Store
from openseer_store.redis_link import RedisLink
from openseer_store.redis_store import RedisStore
from tests.store.builders import ANN, BOB, delta, extend, finish, group, query, results, tokens

pytestmark = pytest.mark.redis


class Purge:
    """A purge of many pieces. `piece`: set once the first piece is done; `go_on`: lets the purge continue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.piece, self.go_on = asyncio.Event(), asyncio.Event()
        self.pieces = 0
        monkeypatch.setattr(redis_store, "SCAN_COUNT", 1)
        whole = RedisLink.run

        async def run(link: RedisLink, verb: str, *arguments: Any, **more: Any) -> Any:
            if verb == "purge" and self.pieces:
                self.piece.set()
                await self.go_on.wait()
            reply = await whole(link, verb, *arguments, **more)
            self.pieces += verb == "purge"
            return reply

        monkeypatch.setattr(RedisLink, "run", run)


@pytest.fixture
def purge(monkeypatch: pytest.MonkeyPatch) -> Purge:
    return Purge(monkeypatch)


@pytest.fixture
async def operator(redis_url: str, job: str) -> AsyncIterator[Store]:
    store = await open_store(redis_url, job)
    yield store
    await store.close()


@pytest.fixture
async def worker(redis_url: str, job: str) -> AsyncIterator[Store]:
    """A store whose calls fail at once instead of waiting."""
    store = RedisStore(redis_url, job, retry_seconds=0.0)
    yield store
    await store.close()


async def test_during_a_purge_no_write_succeeds_and_no_key_is_left(
    operator: Store, worker: Store, purge: Purge, redis_url: str, job: str
) -> None:
    groups = [group(f"g{number}", 2) for number in range(8)]
    await operator.submit(groups)
    claims = await worker.claim(ANN, query(4))
    purging = asyncio.create_task(operator.purge())
    await purge.piece.wait()
    for call in (worker.claim(ANN, query()), worker.submit(groups), extend(worker, ANN, [delta(claims[0], 2)])):
        with pytest.raises(StoreUnavailableError, match="the job's data are being deleted from it"):
            await call
    purge.go_on.set()
    await purging
    link = RedisLink(redis_url, "{other}")
    assert await link.command("KEYS", prefix("default", job) + "*") == [(prefix("default", job) + STORE).encode()]
    await link.close()
    await operator.submit(groups)
    again = await operator.claim(BOB, query())
    assert len(again) == 16
    await operator.complete(BOB, [finish(claim, 5) for claim in again])
    assert {result.tokens for result in await results(operator)} == {tokens(0, 5)}


async def test_an_interrupted_purge_blocks_writes_until_its_mark_expires(
    operator: Store, worker: Store, purge: Purge, redis_url: str, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PURGING_SECONDS", 600)
    await operator.submit([group("a", 1)])
    purging = asyncio.create_task(operator.purge())
    await purge.piece.wait()
    purging.cancel()
    with pytest.raises(StoreUnavailableError):
        await worker.submit([group("b", 1)])
    link, mark = RedisLink(redis_url, "{other}"), prefix("default", job) + ":purging"
    assert 0 < await link.command("TTL", mark) <= 600
    await link.command("PEXPIRE", mark, 1)  # the mark expires
    await link.close()
    assert await operator.submit([group("b", 1)]) == 1
    purge.go_on.set()
    await operator.purge()
    assert (await worker.progress(0)).groups == 0
