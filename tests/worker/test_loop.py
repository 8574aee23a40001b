"""The worker loop on the reference store and scripted engines, in virtual time."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, get_args

import pytest

from openseer_core.errors import EngineError, GpuSickError
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.manifest.fleet import PolicyName
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.messages import Finish, Reply, Result
from openseer_core.queue.placement import Lanes
from openseer_core.queue.policy import policy
from openseer_core.queue.states import FinishReason, State, Status
from openseer_core.tokens import pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, HeartbeatReply
from openseer_store.memory import MemoryStore
from openseer_worker.engine import Engine
from openseer_worker.loop import NEWS_SECONDS, Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.text import scripted_tokens
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings

SIZE = 4


def job(**scripted: Any) -> RolloutJob:
    rollout = {key: scripted.pop(key) for key in ("policy", "quantumTokens", "leaseSeconds") if key in scripted}
    max_tokens = scripted.pop("maxTokens", 400)
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "loop"},
        "spec": {
            "model": {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.01, "slots": 4} | scripted},
            "prompts": {"path": "none"},
            "groupSize": SIZE,
            "sampling": {"maxTokens": max_tokens, "forceLengths": True},
            "rollout": {"quantumTokens": 32} | rollout,
            "workers": {"replicas": 2},
        },
    }
    return parse_job(document, "test")


class Scene:
    """A store with a batch, and workers that start and stop."""

    def __init__(self, job: RolloutJob, lengths: list[list[int]]) -> None:
        self.job = job
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.lengths = lengths
        self.tasks: list[asyncio.Task[None]] = []

    async def submit(self, *, seal: bool = True) -> None:
        rollout = self.job.spec.rollout
        chosen, lanes = policy(rollout.policy), Lanes(rollout.policy, 2)
        longest = self.job.spec.sampling.max_tokens
        for ordinal, lengths in enumerate(self.lengths):
            spec = GroupSpec(
                GroupId(0, f"g{ordinal}"),
                "initial",
                ordinal,
                pack_tokens([1, 2, 3]),
                longest,
                tuple(chosen.bias(length) for length in lengths),
                lanes.bind(ordinal, len(lengths)),
                chosen.priority(GroupView(GroupId(0, f"g{ordinal}"), 0, ordinal, len(lengths), longest, 0.0)),
                0.0,
                tuple(lengths),
                dump_sampling(self.job.spec.sampling),
            )
            await self.store.submit([spec])
        if seal:
            await self.store.seal(0)

    def start(self, index: int, engine: Engine | None = None) -> Worker:
        settings = WorkerSettings(self.job, "", index)
        worker = Worker(settings, self.store, engine or ScriptedEngine(self.job.spec.model.scripted))
        self.tasks.append(asyncio.create_task(worker.run()))
        return worker

    async def finish(self) -> None:
        """Waits until every request has a result; asserts that the tokens are those of the script."""
        while not (await self.store.progress(0)).complete:
            await asyncio.sleep(0.1)
        for ordinal, lengths in enumerate(self.lengths):
            for index, length in enumerate(lengths):
                record = await self.store.record(RequestId(GroupId(0, f"g{ordinal}"), index))
                assert record.state is State.DONE
                assert record.tokens == scripted_tokens(f"0/g{ordinal}", index, 0, length)

    async def results(self) -> list[Any]:
        return [entry for entry in await self.store.results(0, 0, 10_000) if isinstance(entry, Result)]


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(scenario())


LENGTHS = [[20 + 13 * number + 7 * index for index in range(SIZE)] for number in range(10)]


@pytest.mark.parametrize("name", get_args(PolicyName))
def test_every_policy_completes_each_request_once_with_its_own_tokens(name: str) -> None:
    async def scenario() -> None:
        scene = Scene(job(policy=name), LENGTHS)
        await scene.submit()
        workers = [scene.start(index) for index in range(2)]
        await scene.finish()
        for worker in workers:
            worker.drain()
        await asyncio.gather(*scene.tasks)
        results = await scene.results()
        assert len(results) == len({result.request for result in results}) == 10 * SIZE
        assert await scene.store.workers() == []

    play(scenario)


def test_a_drained_worker_gives_back_its_requests_with_their_tokens() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[300] * SIZE])
        await scene.submit()
        first = scene.start(0)
        await asyncio.sleep(1.0)
        first.drain()
        await scene.tasks[0]
        record = await scene.store.record(RequestId(GroupId(0, "g0"), 0))
        assert record.state is State.QUEUED
        assert len(record.tokens) // 4 > 50
        scene.start(1)
        await scene.finish()
        assert {len(result.chunks) for result in await scene.results()} == {2}

    play(scenario)


def test_after_a_workers_death_others_continue_from_its_checkpoint() -> None:
    async def scenario() -> None:
        scene = Scene(job(leaseSeconds=2), [[300] * SIZE])
        await scene.submit()
        scene.start(0)
        await asyncio.sleep(1.0)
        scene.tasks[0].cancel()
        await asyncio.gather(*scene.tasks, return_exceptions=True)
        died_at = asyncio.get_running_loop().time()
        scene.start(1)
        await scene.finish()
        for result in await scene.results():
            lost, last = result.chunks
            assert (lost.event, last.event) == ("reap", "complete")
            assert lost.end == last.start > 50
            assert last.claimed_at - died_at < 2.0 + 0.5

    play(scenario)


def test_a_running_request_continues_in_place_when_none_waits() -> None:
    async def scenario() -> None:
        scene = Scene(job(quantumTokens=16), [[200] * SIZE])
        await scene.submit()
        scene.start(0)
        await scene.finish()
        assert {len(result.chunks) for result in await scene.results()} == {1}

    play(scenario)


def test_a_worker_never_reserves_more_blocks_than_the_engine_has() -> None:
    async def scenario() -> None:
        tight = job(kvBlocks=60, blockTokens=16, slots=32, maxModelLen=512, quantumTokens=32)
        scene = Scene(tight, [[350, 120, 200, 380]] * 8)
        engines = [ScriptedEngine(tight.spec.model.scripted) for _ in range(2)]
        await scene.submit()
        for index, engine in enumerate(engines):
            scene.start(index, engine)
        await scene.finish()
        assert [engine.metrics()["preemptions"] for engine in engines] == [0, 0]

    play(scenario)


def test_in_the_tail_an_overloaded_worker_gives_requests_to_an_idle_one() -> None:
    async def scenario() -> None:
        scene = Scene(job(slots=16, quantumTokens=32), [[380] * SIZE] * 4)
        await scene.submit()
        scene.start(0)
        await asyncio.sleep(0.5)
        scene.start(1)
        await scene.finish()
        moved = [result for result in await scene.results() if len({chunk.worker for chunk in result.chunks}) > 1]
        assert 2 <= len(moved) <= 8

    play(scenario)


def test_a_drain_requested_in_the_store_is_followed() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[300] * SIZE])
        await scene.submit()
        scene.start(0)
        await asyncio.sleep(0.5)
        await scene.store.request_drain("worker-0")
        await asyncio.wait_for(scene.tasks[0], 5)

    play(scenario)


class FrozenEngine(ScriptedEngine):
    """An engine that accepts requests and makes no step."""

    def start(self, wake: Callable[[], None]) -> None:
        del wake


def test_requests_of_a_stalled_engine_move_to_other_workers() -> None:
    async def scenario() -> None:
        scene = Scene(job(leaseSeconds=2), [[50] * SIZE])
        await scene.submit()
        scene.start(0, FrozenEngine(scene.job.spec.model.scripted))
        with pytest.raises(EngineError, match="no step for 120 s"):
            await scene.tasks[0]
        scene.start(1)
        await scene.finish()

    play(scenario)


class RefusingEngine(ScriptedEngine):
    """An engine that refuses one request, as one with an invalid prompt."""

    def add(self, request: Any) -> None:
        super().add(request)
        if request.index == 2:
            self._refused = request.key

    def collect(self) -> Any:
        outputs = super().collect()
        for output in outputs:
            if output.key == getattr(self, "_refused", None) and output.finish is not None:
                output.finish, output.stop_reason = FinishReason.INFRA_FAILED, "not a token"
        return outputs


def test_a_request_refused_by_the_engine_fails_with_the_reason() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[50] * SIZE])
        await scene.submit()
        scene.start(0, RefusingEngine(scene.job.spec.model.scripted))
        while not (await scene.store.progress(0)).complete:
            await asyncio.sleep(0.1)
        failed = [result for result in await scene.results() if result.status is not Status.OK]
        assert [(result.request.index, result.status, result.stop_reason) for result in failed] == [
            (2, Status.INFRA_FAILED, "not a token")
        ]

    play(scenario)


class CrowdedStore(MemoryStore):
    """A store that answers a number of completions as if a sibling's update had preceded them."""

    stale = 3

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        if self.stale:
            self.stale -= 1
            for finish in finishes:
                group = self._queue._groups[finish.delta.request.group]  # pyright: ignore
                group.view = group.view.with_running(1)
        return await super().complete(worker, finishes)


def test_a_finish_after_a_siblings_update_is_sent_again() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[50] * SIZE])
        scene.store = CrowdedStore(asyncio.get_running_loop().time)
        await scene.submit()
        scene.start(0)
        await scene.finish()
        view = await scene.store.group_view(GroupId(0, "g0"))
        assert (view.finished, view.longest_finished) == (SIZE, 50)

    play(scenario)


class RecordingStore(MemoryStore):
    """A store that records the heartbeats with their times."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.heartbeats: list[tuple[float, Heartbeat]] = []

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        self.heartbeats.append((asyncio.get_running_loop().time(), info))
        return await super().heartbeat(worker, info)

    def first(self, state: str, after: float = 0.0) -> float:
        return next(at for at, info in self.heartbeats if info.state == state and at >= after)


def test_state_changes_are_reported_at_once_at_most_five_times_a_second() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [])
        now = asyncio.get_running_loop().time
        store = scene.store = RecordingStore(now)
        worker = scene.start(0)
        await asyncio.sleep(1.5)
        assert store.heartbeats[0][1].state == "idle"
        submitted = now()
        for count in range(1, 40):
            scene.lengths = [[5] * SIZE] * count
            await scene.submit(seal=False)
            await asyncio.sleep(0.25)
        assert store.first("busy") - submitted < 0.5
        assert len(store.heartbeats) > 20
        drained = now()
        worker.drain()
        await scene.tasks[0]
        assert store.first("draining") - drained < 0.02
        times = [at for at, info in store.heartbeats if info.state != "draining"]
        assert min(after - before for before, after in itertools.pairwise(times)) >= NEWS_SECONDS - 1e-9

    play(scenario)


def test_a_worker_reports_the_context_that_it_holds() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[300] * SIZE])
        store = scene.store = RecordingStore(asyncio.get_running_loop().time)
        await scene.submit()
        scene.start(0)
        await scene.finish()
        metrics = [info.metrics for _, info in store.heartbeats if info.state == "busy"]
        assert all(3 * SIZE <= int(values["held_tokens"]) <= 303 * SIZE for values in metrics)
        assert max(int(values["held_tokens"]) for values in metrics) > 200 * SIZE
        await asyncio.sleep(1.5)
        assert store.heartbeats[-1][1].metrics["held_tokens"] == 0
        assert "node" not in store.heartbeats[-1][1].metrics

    play(scenario)


def test_a_worker_is_ready_from_the_stores_first_answer_until_a_drain() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [])
        worker = scene.start(0)
        assert not worker.is_ready
        await asyncio.sleep(0.5)
        assert worker.is_ready
        worker.drain()
        assert not worker.is_ready
        await scene.tasks[0]

    play(scenario)


def test_a_scripted_engine_with_the_named_file_is_sick_and_drains(tmp_path: Path) -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[300] * SIZE])
        store = scene.store = RecordingStore(asyncio.get_running_loop().time)
        await scene.submit()
        scene.start(0, ScriptedEngine(scene.job.spec.model.scripted, tmp_path / "sick"))
        await asyncio.sleep(1.2)
        assert {info.state for _, info in store.heartbeats} == {"idle", "busy"}
        (tmp_path / "sick").touch()
        with pytest.raises(GpuSickError, match="exists"):
            await scene.tasks[0]
        assert (store.heartbeats[-1][1].state, store.heartbeats[-1][1].metrics["sick"]) == (
            "sick",
            f"{tmp_path / 'sick'} exists",
        )

    play(scenario)
