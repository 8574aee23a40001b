"""A small and a large worker in one fleet: the large one continues responses that exceed the small one's limits."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from openseer_core.ids import GroupId, WorkerId
from openseer_core.manifest.generation import Scripted
from openseer_core.manifest.job import RolloutJob, Sampling
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec, Priority
from openseer_core.queue.messages import Result
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import count_items, pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.memory import MemoryStore
from openseer_store.port import Store
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.text import scripted_tokens
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings

SMALL, LARGE = 8, 256
"""KV blocks of 16 tokens."""
WAIT_SECONDS = 120.0
LARGER = Heartbeat(WorkerState.IDLE, WorkerMetrics({"worker_tokens": 16 * LARGE}))


def job() -> RolloutJob:
    spec = {
        "model": {"path": "none", "engine": "scripted"},
        "prompts": {"path": "none"},
        "rollout": {"quantumTokens": 32},
    }
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "mixed"},
        "spec": spec,
    }
    return parse_job(document, "test")


def group(name: str, prompt: int, response: int, *, forced: bool = False, size: int = 1) -> GroupSpec:
    sampling = Sampling(max_tokens=response, ignore_eos=True, force_lengths=forced)
    return GroupSpec(
        GroupId(0, name), "initial", 0, pack_tokens([1] * prompt), response, (0.0,) * size, ("",) * size, Priority(0.0),
        0.0, (response,) * size if forced else (), dump_sampling(sampling),
    )  # fmt: skip


class Fleet:
    """Workers on a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._tasks: list[tuple[Worker, asyncio.Task[None]]] = []

    def start(self, blocks: int) -> None:
        engine = ScriptedEngine(Scripted(kv_blocks=blocks, step_seconds=0.002, slots=8))
        worker = Worker(WorkerSettings(job(), "", len(self._tasks)), self.store, engine)
        self._tasks.append((worker, asyncio.create_task(worker.run())))

    async def stop(self, index: int) -> None:
        worker, task = self._tasks[index]
        worker.drain()
        await task

    async def ends(self, count: int) -> dict[str, Result]:
        """Waits for `count` results and returns them by group and index."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            entries = await self.store.results(0, 0, 1000)
            found = [entry for entry in entries if isinstance(entry, Result)]
            if len(found) >= count:
                return {f"{result.request.group.name}/{result.request.index}": result for result in found}
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{count} results")


def play(scenario: Callable[[Fleet], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scenario(Fleet(MemoryStore(asyncio.get_running_loop().time)))

    run_virtual(main())


def ended(result: Result) -> tuple[Status, FinishReason, int]:
    return result.status, result.reason, count_items(result.tokens)


@pytest.mark.parametrize("forced", [False, True])
def test_a_response_too_large_for_a_worker_moves_to_a_larger_one(forced: bool) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.store.heartbeat(WorkerId("other", "1"), LARGER)
        fleet.start(SMALL)
        await fleet.store.submit([group("g", 28, 200, forced=forced)])
        await asyncio.sleep(2)
        assert not await fleet.store.results(0, 0, 10)
        assert (await fleet.store.progress(0)).tokens == 100
        fleet.start(LARGE)
        result = (await fleet.ends(1))["g/0"]
        assert ended(result) == (Status.OK, FinishReason.LENGTH, 200)
        assert result.tokens == scripted_tokens("0/g", 0, 0, 200)
        assert [chunk.end for chunk in result.chunks] == [100, 200]
        for index in (0, 1):
            await fleet.stop(index)

    play(scenario)


def test_a_response_ends_when_the_only_larger_worker_leaves() -> None:
    async def scenario(fleet: Fleet) -> None:
        other = WorkerId("other", "1")
        await fleet.store.heartbeat(other, LARGER)
        fleet.start(SMALL)
        await fleet.store.submit([group("g", 28, 200)])
        await asyncio.sleep(2)
        assert not await fleet.store.results(0, 0, 10)
        await fleet.store.deregister(other)
        assert ended((await fleet.ends(1))["g/0"]) == (Status.OK, FinishReason.CONTEXT_FULL, 100)
        await fleet.stop(0)

    play(scenario)


def test_a_large_worker_keeps_responses_too_large_for_idle_ones() -> None:
    async def scenario(fleet: Fleet) -> None:
        fleet.start(LARGE)
        await fleet.store.submit([group("g", 28, 600, size=2)])
        await asyncio.sleep(0.5)
        for _ in range(3):
            fleet.start(SMALL)
        for result in (await fleet.ends(2)).values():
            assert ended(result) == (Status.OK, FinishReason.LENGTH, 600)
            assert len(result.chunks) == 1
        for index in range(4):
            await fleet.stop(index)

    play(scenario)


@pytest.mark.redis
async def test_a_mixed_fleet_ends_only_responses_that_fit_no_worker(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as url:
        store = await open_store(url, "mixed", "default")
        fleet = Fleet(store)
        fleet.start(LARGE)
        fleet.start(SMALL)
        deadline = time.monotonic() + WAIT_SECONDS
        while len(await store.workers()) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        groups = [
            *(group(f"long{number:02d}", 400, 60) for number in range(20)),
            group("exact", 128, 40, size=4),
            group("grows", 100, 200, size=8),
            *(group(f"short{number}", 20, 30) for number in range(4)),
            group("huge", 4100, 10),
        ]
        await store.submit(groups)
        found = await fleet.ends(37)
        assert ended(found.pop("huge/0")) == (Status.INFRA_FAILED, FinishReason.INFRA_FAILED, 0)
        lengths = {spec.id.name: spec.max_tokens for spec in groups}
        for name, result in found.items():
            assert ended(result) == (Status.OK, FinishReason.LENGTH, lengths[name.split("/")[0]]), name
        await fleet.stop(0)
        await store.submit([group("left", 400, 60)])
        left = (await fleet.ends(38))["left/0"]
        assert "400 tokens do not fit a worker's KV cache, allowed with the response: 128" in left.stop_reason
        await fleet.stop(1)
        await store.close()


def test_a_request_too_large_for_one_worker_waits_for_a_larger_one() -> None:
    async def scenario(fleet: Fleet) -> None:
        fleet.start(SMALL)
        await asyncio.sleep(1.01)
        await fleet.store.heartbeat(WorkerId("other", "1"), LARGER)
        await fleet.store.submit([group("g", 28, 200, forced=True)])
        await asyncio.sleep(0.9)
        assert not await fleet.store.results(0, 0, 10)
        fleet.start(LARGE)
        assert ended((await fleet.ends(1))["g/0"]) == (Status.OK, FinishReason.LENGTH, 200)
        for index in (0, 1):
            await fleet.stop(index)

    play(scenario)
