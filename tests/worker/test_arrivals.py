"""Times of a worker's claims: at calls of the store, not by the clock, in virtual time."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from openseer_core.ids import WorkerId
from openseer_core.queue.kv_blocks import KvGroup, KvLayout
from openseer_core.queue.messages import Claim, ClaimQuery
from openseer_store.memory import MemoryStore
from openseer_worker.arrivals import POLL_SECONDS
from openseer_worker.scripted.engine import ScriptedEngine
from tests.worker.test_loop import SIZE, Scene, job, play


class ClaimedStore(MemoryStore):
    """A store that records time and size of each claim, and can omit calls of workers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.claims: list[tuple[float, int]] = []
        self.checkpoints = 0
        self.calls = True

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        found = await super().claim(worker, query)
        self.claims.append((asyncio.get_running_loop().time(), len(found)))
        return found

    async def extend(self, *arguments: Any, **more: Any) -> Any:
        self.checkpoints += 1
        return await super().extend(*arguments, **more)

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        if not self.calls:
            await asyncio.sleep(seconds)
        return self.calls and await super().wait_for_work(version, lanes, seconds, adapters)


def scene_of(lengths: list[list[int]], **options: Any) -> tuple[Scene, ClaimedStore]:
    scene = Scene(job(**options), lengths)
    store = scene.store = ClaimedStore(asyncio.get_running_loop().time)
    return scene, store


def test_an_idle_worker_claims_rarely_and_writes_no_checkpoints() -> None:
    async def scenario() -> None:
        scene, store = scene_of([])
        scene.start(0)
        await asyncio.sleep(10)
        assert len(store.claims) <= 10 / POLL_SECONDS + 1
        assert store.checkpoints == 0

    play(scenario)


@pytest.mark.parametrize(("calls", "seconds"), [(True, 0.0), (False, POLL_SECONDS)])
def test_a_worker_claims_at_a_call_or_by_its_timer_without_one(calls: bool, seconds: float) -> None:
    async def scenario() -> None:
        scene, store = scene_of([[50] * SIZE])
        store.calls = calls
        scene.start(0)
        await asyncio.sleep(5.2)
        submitted = asyncio.get_running_loop().time()
        await scene.submit()
        await scene.finish()
        first = next(at for at, found in store.claims if found)
        assert 0 <= first - submitted <= seconds

    play(scenario)


def test_few_of_many_idle_workers_claim_when_one_group_arrives() -> None:
    async def scenario() -> None:
        scene, store = scene_of([[20] * SIZE])
        for index in range(40):
            scene.start(index)
        await asyncio.sleep(5 + POLL_SECONDS / 3)
        before = len(store.claims)
        await scene.submit()
        await asyncio.sleep(POLL_SECONDS / 3)
        claims = store.claims[before:]
        assert sum(found for _, found in claims) == SIZE
        assert len(claims) <= 2 * SIZE + 4

    play(scenario)


def test_a_full_worker_claims_when_a_request_ends() -> None:
    async def scenario() -> None:
        scene, store = scene_of([[100] * SIZE, [100] * SIZE], slots=SIZE, quantumTokens=128)
        store.calls = False
        await scene.submit()
        scene.start(0)
        await scene.finish()
        found = [count for _, count in store.claims if count]
        assert found[0] == SIZE
        assert sum(found) == 2 * SIZE
        assert len(store.claims) <= 4 + 2 * SIZE

    play(scenario)


def test_a_worker_claims_when_a_computed_context_frees_blocks() -> None:
    async def scenario() -> None:
        scene, store = scene_of([[300] * SIZE])
        engine = ScriptedEngine(scene.job.spec.model.scripted)
        # Of 4096 blocks a request takes 2400 while its three tokens are computed, and 800 afterwards.
        engine.profile = replace(engine.profile, layout=KvLayout((KvGroup(1, count=800, most=1, most_computing=3),)))
        await scene.submit()
        scene.start(0, engine)
        await asyncio.sleep(0.9 * POLL_SECONDS)
        assert [found for _, found in store.claims if found] == [1, 1, 1]

    play(scenario)
