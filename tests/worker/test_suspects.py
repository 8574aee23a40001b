"""A request that kills each worker that runs it, among harmless ones: it alone ends without a response."""

import asyncio
from pathlib import Path

import pytest

from openseer_core.errors import EngineError
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.states import Status
from openseer_worker.engine import EngineRequest
from openseer_worker.loop import Worker
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings
from tests.worker.fleet import SIZE, Fleet, LoadingEngine

GROUPS = 16
CULPRIT = ("0/g7", 2)
FATAL_SECONDS = 0.5
"""How long the culprit runs before it kills."""
START_SECONDS = 1.0
"""From a worker's death to its next boot."""


class MortalEngine(LoadingEngine):
    """An engine that breaks soon after the culprit was added."""

    dies_at = float("inf")

    def add(self, request: EngineRequest) -> None:
        """Adds a request."""
        super().add(request)
        if (request.group, request.index) == CULPRIT:
            self.dies_at = asyncio.get_running_loop().time() + FATAL_SECONDS

    def check(self) -> None:
        """Raises EngineError if the engine is broken."""
        if asyncio.get_running_loop().time() >= self.dies_at:
            raise EngineError("an illegal memory access")
        super().check()


def wide(job: RolloutJob) -> RolloutJob:
    """The job with slots for a quarter of all requests per worker."""
    scripted = job.spec.model.scripted.model_copy(update={"slots": GROUPS * SIZE // 4})
    model = job.spec.model.model_copy(update={"scripted": scripted})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"model": model})})


async def live(fleet: Fleet, index: int, *, speaks: bool) -> None:
    """A worker that restarts after each death. `speaks`: it reports the broken engine to the store."""
    while True:
        engine, settings = MortalEngine(fleet.job.spec.model.scripted), WorkerSettings(fleet.job, "", index)
        fleet.store.engines[settings.worker] = engine
        work = asyncio.create_task(Worker(settings, fleet.store, engine).run())
        while not work.done() and (speaks or asyncio.get_running_loop().time() < engine.dies_at - 0.1):
            await asyncio.sleep(0.05)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await asyncio.sleep(START_SECONDS)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_request_that_kills_its_workers_fails_alone(tmp_path: Path, speaks: bool) -> None:
    async def scenario() -> None:
        fleet = Fleet(tmp_path)
        fleet.job = wide(fleet.job)
        await fleet.submit(0, "initial", groups=GROUPS)
        workers = [asyncio.create_task(live(fleet, index, speaks=speaks)) for index in range(2)]
        found = await fleet.results(0)
        failed = [(str(r.request.group), r.request.index) for r in found if r.status is not Status.OK]
        assert failed == [CULPRIT]
        assert len(found) == GROUPS * SIZE
        for worker in workers:
            worker.cancel()
        await fleet.close()

    run_virtual(scenario())
