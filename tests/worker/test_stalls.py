"""Workers while the store does not answer, in virtual time: a stall is not a death."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_core.errors import EngineError
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.states import State, Status
from openseer_core.worker.heartbeat import Heartbeat, HeartbeatReply
from openseer_worker.loop import Worker
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings
from tests.worker.fleet import Fleet, LoadingEngine, StrictStore

STALL_SECONDS = 12.0
"""Longer than a lease, shorter than a response takes."""


def slow(job: RolloutJob, slots: int) -> RolloutJob:
    """The job with ten steps per second and slots for so many requests."""
    scripted = job.spec.model.scripted.model_copy(update={"step_seconds": 0.1, "slots": slots})
    model = job.spec.model.model_copy(update={"scripted": scripted})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"model": model})})


class StallingStore(StrictStore):
    """A store with one slow heartbeat."""

    stalls_at = float("inf")

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        """Waits in the first call."""
        if asyncio.get_running_loop().time() >= self.stalls_at:
            self.stalls_at = float("inf")
            await asyncio.sleep(STALL_SECONDS)
        return await super().heartbeat(worker, info)


class FrozenEngine(LoadingEngine):
    """An engine that accepts requests and makes no step."""

    def start(self, wake: Callable[[], None]) -> None:
        """Does nothing."""
        del wake


def test_a_stalled_engines_requests_return_and_a_repeated_staller_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet(tmp_path)
        await fleet.submit(0, "initial", groups=1)
        while not (await fleet.store.progress(0)).complete:
            engine = FrozenEngine(fleet.job.spec.model.scripted)
            settings = WorkerSettings(fleet.job, "", 0)
            fleet.store.engines[settings.worker] = engine
            with pytest.raises(EngineError, match="no step"):
                await Worker(settings, fleet.store, engine).run()
            record = await fleet.store.record(RequestId(GroupId(0, "g0"), 0))
            assert {chunk.event for chunk in record.chunks} <= {"reap", "fail"}
            assert record.state is not State.LEASED
        assert [result.status for result in await fleet.results(0)] == [Status.INFRA_FAILED] * 4
        await fleet.close()

    run_virtual(scenario())


def test_after_a_stall_a_worker_renews_its_leases_before_it_claims(tmp_path: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet(tmp_path)
        fleet.job = slow(fleet.job, 8)
        store = fleet.store = StallingStore(fleet.now)
        store.stalls_at = fleet.now() + 1.0
        await fleet.submit(0, "initial", groups=1)
        fleet.start(0)
        results = await fleet.results(0)
        assert [chunk.event for result in results for chunk in result.chunks] == ["complete"] * len(results)
        await fleet.close()

    run_virtual(scenario())
