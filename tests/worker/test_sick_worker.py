"""A worker whose GPU is sick, on the reference store, in virtual time."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_core.errors import EngineError, GpuSickError
from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.loop import Worker
from openseer_worker.settings import WorkerSettings
from tests.worker.fleet import Fleet, LoadingEngine, play

FAULT = WorkerMetrics({"gpu0_fault": "gone"})
SICK_AT = 0.5
"""Seconds, between the first look at the GPU and the second."""


class DyingEngine(LoadingEngine):
    """An engine that breaks when its GPU becomes sick."""

    fails_at = float("inf")

    def check(self) -> None:
        if asyncio.get_running_loop().time() > self.fails_at:
            raise EngineError("no answer")
        super().check()


class SlowEngine(LoadingEngine):
    """An engine that takes 1.5 s to abort a request."""

    def abort(self, key: str) -> None:
        asyncio.get_running_loop().call_later(1.5, super().abort, key)


async def run(fleet: Fleet, engine: LoadingEngine, readings: Callable[[float], WorkerMetrics]) -> None:
    """Runs one worker with all the work to its end. `readings`: of its GPUs, by seconds since its start."""
    for other in fleet.workers:
        fleet.kill(other)
    begun = fleet.now()
    settings = WorkerSettings(fleet.job, "", 0)
    fleet.store.engines[settings.worker] = engine
    await fleet.submit(1, "initial")
    await Worker(settings, fleet.store, engine, lambda: readings(fleet.now() - begun)).run()


def test_a_worker_stays_sick_after_its_gpu_recovers(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        engine = SlowEngine(fleet.job.spec.model.scripted)
        with pytest.raises(GpuSickError, match=r"^gpu0: gone$"):
            await run(fleet, engine, lambda age: FAULT if SICK_AT < age < SICK_AT + 1 else WorkerMetrics())
        assert (await fleet.store.progress(1)).closed == 0

    play(tmp_path, story)


def test_an_engine_broken_on_a_sick_gpu_is_not_an_engine_failure(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        engine = DyingEngine(fleet.job.spec.model.scripted)
        engine.fails_at = fleet.now() + SICK_AT
        with pytest.raises(GpuSickError, match=r"^gpu0: gone; no answer$"):
            await run(fleet, engine, lambda age: FAULT if age >= SICK_AT else WorkerMetrics())

    play(tmp_path, story)


def test_an_engine_broken_on_a_healthy_gpu_is_an_engine_failure(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        engine = DyingEngine(fleet.job.spec.model.scripted)
        engine.fails_at = fleet.now() + SICK_AT
        with pytest.raises(EngineError, match=r"^no answer$"):
            await run(fleet, engine, lambda _: WorkerMetrics({"gpu0_xid": 13}))

    play(tmp_path, story)
