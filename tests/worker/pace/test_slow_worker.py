"""A worker whose engine is slow, on the reference store and scripted engines, in virtual time."""

import asyncio

from openseer_core.ids import WorkerId
from openseer_core.queue.messages import FASTER
from openseer_core.weights.fleet_spec import MEMORY_PARTS
from openseer_core.weights.rest import asleep
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.pace import ResponsePace
from openseer_worker.scripted.engine import ScriptedEngine
from tests.worker.test_loop import SIZE, Scene, job, play

STEP, SLOWER = 0.01, 4
LONGEST = 4000


def test_a_short_variation_of_speed_makes_no_worker_slow() -> None:
    pace, length, seen = ResponsePace(), 0, list[float]()
    for moment in range(200):
        pace.note({"a": length, "b": length}, 0.25 * moment)
        length += int((140 if moment % 6 < 3 else 60) * 0.25)
        seen.append(pace.value)
    assert max(seen[100:]) < FASTER * min(seen[100:])
    assert min(seen[100:]) > 80


def slow_engine(scene: Scene) -> ScriptedEngine:
    scripted = scene.job.spec.model.scripted
    return ScriptedEngine(scripted.model_copy(update={"step_seconds": SLOWER * STEP}))


def test_the_tail_of_a_slow_worker_continues_at_a_fast_one() -> None:
    async def scenario() -> None:
        scene = Scene(job(maxTokens=LONGEST, slots=SIZE), [[LONGEST] * SIZE, [LONGEST // 4] * SIZE])
        await scene.submit()
        began = asyncio.get_running_loop().time()
        scene.start(0, slow_engine(scene))
        await asyncio.sleep(1.0)  # the slow worker has claimed the first group before the fast one starts
        scene.start(1)
        await scene.finish()
        took = asyncio.get_running_loop().time() - began
        assert took < 0.5 * LONGEST * SLOWER * STEP

    play(scenario)


def test_a_slow_worker_alone_keeps_its_responses() -> None:
    async def scenario() -> None:
        scene = Scene(job(), [[300] * SIZE])
        await scene.submit()
        scene.start(0, slow_engine(scene))
        await scene.finish()
        assert {len(result.chunks) for result in await scene.results()} == {1}

    play(scenario)


def test_responses_that_no_free_worker_claims_stay_at_the_slow_one() -> None:
    async def beat(scene: Scene) -> None:
        claims_nothing = Heartbeat(WorkerState.BUSY, WorkerMetrics({"free_pace": 1000.0}))
        while True:
            await scene.store.heartbeat(WorkerId("worker-1", "1"), claims_nothing)
            await asyncio.sleep(0.5)

    async def scenario() -> None:
        scene = Scene(job(slots=SIZE), [[300] * SIZE])
        other = asyncio.create_task(beat(scene))
        scene.start(0, slow_engine(scene))
        await scene.submit()
        await scene.finish()
        assert max(len(result.chunks) for result in await scene.results()) > 1
        other.cancel()

    play(scenario)


def test_a_sleeping_worker_reports_no_free_pace() -> None:
    async def scenario() -> None:
        scene, clock = Scene(job(), [[300] * SIZE]), asyncio.get_running_loop().time
        await scene.submit()
        scene.start(0)
        await scene.finish()
        await asyncio.sleep(3.0)
        [awake] = await scene.store.workers()
        spec = await scene.store.fleet_spec()
        assert await scene.store.swap_fleet_spec(asleep(spec, MEMORY_PARTS, clock(), keep_weights=True))
        await asyncio.sleep(3.0)
        [sleeping] = await scene.store.workers()
        assert awake.heartbeat.metrics.free_pace > 0
        assert sleeping.heartbeat.metrics.free_pace == 0

    play(scenario)
