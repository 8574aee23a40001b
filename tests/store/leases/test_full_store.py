"""A server with full memory: while it refuses writes no lease begins or is lost, and afterwards requests continue."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from openseer_core.errors import StoreUnavailableError
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.states import State
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_store.embedded import EmbeddedRedis
from openseer_store.redis_link import RedisLink
from openseer_store.redis_store import RedisStore
from tests.store.builders import ANN, BOB, Clock, delta, extend, finish, group, query, request, results

pytestmark = pytest.mark.redis


class FullServer:
    """A server of one test, whose memory can be filled."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url, self.clock = url, clock
        self.store = RedisStore(url, "job", clock=clock, retry_seconds=0.1)
        self._link = RedisLink(url, "{other}")

    async def fill(self) -> None:
        """Leaves no memory for writes."""
        await self._link.command("CONFIG", "SET", "maxmemory", 1)

    async def empty(self) -> None:
        """Allows writes again."""
        await self._link.command("CONFIG", "SET", "maxmemory", 0)

    async def close(self) -> None:
        await self._link.close()
        await self.store.close()


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[FullServer]:
    async with EmbeddedRedis(tmp_path) as url:
        server = FullServer(url, clock)
        yield server
        await server.close()


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(StoreUnavailableError, match="memory is full"):
        await call


async def test_a_full_store_leases_nothing_and_takes_nothing_back(server: FullServer) -> None:
    store = server.store
    await store.submit([group("a", 4)])
    await store.heartbeat(ANN, Heartbeat(WorkerState.BUSY))
    await store.claim(ANN, query(1))
    await store.reap(3)
    await server.fill()
    for _ in range(12):
        server.clock.seconds += 1
        await refused(store.claim(BOB, query()))
        await refused(store.reap(3))
    await server.empty()
    states = [(await store.record(request(f"a/{index}"))).state for index in range(4)]
    assert states == [State.LEASED, State.QUEUED, State.QUEUED, State.QUEUED]
    assert (await extend(store, BOB, [])).fleet_load.inflight == 1


async def test_no_lease_is_lost_for_renewals_that_a_full_store_refused(server: FullServer) -> None:
    store = server.store
    await store.submit([group("a", 4)])
    claims = await store.claim(ANN, query(4))
    await server.fill()
    for _ in range(30):
        server.clock.seconds += 1
        await store.now()
        await asyncio.sleep(0)
    await refused(extend(store, ANN, [delta(claim, 2) for claim in claims]))
    await server.empty()
    assert await store.claim(BOB, query()) == []
    await extend(store, ANN, [delta(claim, 2) for claim in claims])
    await store.complete(ANN, [finish(claim, 3) for claim in claims])
    assert [len(result.chunks) for result in await results(store)] == [1] * 4


async def test_a_full_store_is_connected_to_and_forgets_batches(server: FullServer) -> None:
    store = server.store
    await store.submit([group("a", 4, batch=1)])
    await server.fill()
    another = RedisStore(server.url, "job", clock=server.clock)
    await another.forget(1)
    await another.close()
    await server.empty()
    assert await store.group_names(1, 0, 10) == []


async def test_acknowledgements_make_room_in_a_full_store(server: FullServer) -> None:
    store = server.store
    batch, _ = await store.open_batch(OpenBatch("v1", "{}"))
    await store.submit([group(f"g{number}", 1, batch=batch.number, prompt_tokens=8000) for number in range(8)])
    await store.complete(ANN, [finish(claim, 50) for claim in await store.claim(ANN, query(context_tokens=9000))])
    await store.seal(batch.number)
    used = (await store.memory()).used
    await server.fill()
    await refused(store.submit([group("more", 1, batch=0)]))
    for result in await results(store, batch.number):
        await store.acknowledge(batch.number, result.cursor + 1)
    assert (await store.memory()).used < used - 8 * 4000
    await server.empty()
    assert await results(store, batch.number) == []


async def test_a_store_reports_its_used_memory_and_its_limit(server: FullServer) -> None:
    assert (await server.store.memory()).limit == 0
    await server.fill()
    memory = await server.store.memory()
    assert (memory.limit, memory.used > 1, memory.is_nearly_full) == (1, True, True)
    await server.empty()
    assert not (await server.store.memory()).is_nearly_full
