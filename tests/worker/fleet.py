"""Workers with scripted engines on the reference store, in virtual time, and a controller of the fleet spec."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from openseer_core.errors import LoadError
from openseer_core.ids import GroupId, WorkerId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec, Priority
from openseer_core.queue.messages import Claim, ClaimQuery, Result
from openseer_core.queue.states import Status
from openseer_core.tokens import pack_tokens
from openseer_core.weights.fleet_spec import MEMORY_PARTS, WeightsTransaction
from openseer_core.weights.publish import Publish, Source
from openseer_core.weights.transaction import (
    AbortBatches,
    ChangeVersion,
    DrainWorkers,
    TransactionAction,
    advance,
    begin,
    participants,
)
from openseer_core.weights.versions import leaving
from openseer_store.memory import MemoryStore
from openseer_worker.engine import NewWeights
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.text import scripted_tokens
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings
from tests.worker.weights.made import write_weights

LENGTH = 300
SIZE = 4


def job(**model: Any) -> RolloutJob:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "weights"},
        "spec": {
            "model": {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.01, "slots": 4}, **model},
            "prompts": {"path": "none"},
            "groupSize": SIZE,
            "sampling": {"maxTokens": 400, "forceLengths": True},
            "rollout": {"quantumTokens": 32, "leaseSeconds": 2},
            "workers": {"replicas": 2},
        },
    }
    return parse_job(document, "test")


class LoadingEngine(ScriptedEngine):
    """A scripted engine that records its loaded weights and fails a set number of times. `waking`: seconds to wake."""

    loaded = "initial"
    failures = 0
    hangs = False
    waking = 0.0
    is_waking = False

    async def load_weights(self, weights: NewWeights) -> None:
        self.loaded = "nothing"
        if self.hangs:
            await asyncio.Event().wait()
        if self.failures:
            self.failures -= 1
            raise LoadError("the disk is gone")
        await super().load_weights(weights)
        self.loaded = "initial" if weights.folder is None else weights.folder.name

    async def sleep(self, *, keep_weights: bool) -> bool:
        self.loaded = self.loaded if keep_weights else "nothing"
        return await super().sleep(keep_weights=keep_weights)

    async def wake(self, *, weights_only: bool) -> None:
        self.is_waking = True
        await asyncio.sleep(self.waking)
        self.is_waking = False
        await super().wake(weights_only=weights_only)

    @property
    def has_memory(self) -> bool:
        """Whether a part of the engine is awake."""
        return self._asleep != set(MEMORY_PARTS)

    @property
    def held(self) -> list[str]:
        """Versions of the loaded adapters."""
        return sorted(self._adapters)


class StrictStore(MemoryStore):
    """A store that asserts that each worker claims only for versions that its engine has loaded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.engines: dict[WorkerId, LoadingEngine] = {}
        self.claimed: list[str] = []
        self.delay = 0.0

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        """Claims, and answers after `delay` seconds."""
        assert query.version == self.engines[worker].loaded
        assert set(query.adapters) <= set(self.engines[worker].held)
        claims = await super().claim(worker, query)
        self.claimed += [claim.version for claim in claims]
        await asyncio.sleep(self.delay)
        return claims


class Fleet:
    """A store, workers, and a controller of the fleet spec."""

    def __init__(self, tmp_path: Path, **model: Any) -> None:
        self.job = job(**model)
        self.now = asyncio.get_running_loop().time
        self.store = StrictStore(self.now)
        self.folder = tmp_path
        self.workers: dict[str, Worker] = {}
        self.engines: dict[str, LoadingEngine] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.actions: list[TransactionAction] = []
        self.controller = asyncio.create_task(self.control())
        self.batches: dict[int, str] = {}

    def start(self, index: int, **engine: Any) -> str:
        """Starts a worker with a new boot id."""
        settings = WorkerSettings(self.job, "", index)
        loading = LoadingEngine(self.job.spec.model.scripted)
        for name, value in engine.items():
            setattr(loading, name, value)
        worker = Worker(settings, self.store, loading)
        name = settings.worker.name
        self.store.engines[settings.worker] = self.engines[name] = loading
        self.workers[name] = worker
        self.tasks[name] = asyncio.create_task(worker.run())
        return name

    def kill(self, name: str) -> None:
        self.tasks[name].cancel()

    async def submit(self, batch: int, version: str, groups: int = 2) -> None:
        self.batches[batch] = version
        sampling = dump_sampling(self.job.spec.sampling)
        for ordinal in range(groups):
            spec = GroupSpec(
                GroupId(batch, f"g{ordinal}"), version, ordinal, pack_tokens([1, 2, 3]), 400, (0.0,) * SIZE,
                ("",) * SIZE, Priority(0.0), self.now(), (LENGTH,) * SIZE, sampling,
            )  # fmt: skip
            await self.store.submit([spec])
        await self.store.seal(batch)

    def weights(self, version: str) -> Source:
        folder = self.folder / version
        write_weights(folder, version)
        return Source(path=str(folder))

    async def sleep(self, seconds: float) -> None:
        """Sleeps in virtual time."""
        await asyncio.sleep(seconds)

    async def publish(self, version: str = "v1", **more: Any) -> None:
        values: dict[str, Any] = {"version": version, "source": self.weights(version), "retries": 0} | more
        fleet_spec = await self.store.fleet_spec()
        names = participants(await self.store.workers(), self.now())
        assert await self.store.swap_fleet_spec(begin(fleet_spec, Publish.model_validate(values), names, self.now()))

    async def transaction(self) -> WeightsTransaction:
        transaction = (await self.store.fleet_spec()).transaction
        assert transaction is not None
        return transaction

    async def until(self, phase: str, seconds: float = 60.0) -> WeightsTransaction:
        end = self.now() + seconds
        while (transaction := await self.transaction()).phase != phase:
            assert self.now() < end, f"{transaction.phase}, not {phase}: {transaction.message}"
            await asyncio.sleep(0.02)
        return transaction

    async def control(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            fleet_spec = await self.store.fleet_spec()
            transaction = fleet_spec.active_transaction
            if transaction is None and not fleet_spec.awaits_digest:
                continue
            unfinished = 0
            for batch, version in self.batches.items():
                progress = await self.store.progress(batch)
                old = transaction is not None and version in leaving(fleet_spec, transaction)
                unfinished += progress.requests - progress.closed if old else 0
            step = advance(fleet_spec, await self.store.workers(), unfinished, self.now())
            for action in step.actions:
                await self.carry_out(action)
            if step.fleet_spec is not fleet_spec:
                await self.store.swap_fleet_spec(step.fleet_spec)

    async def carry_out(self, action: TransactionAction) -> None:
        self.actions.append(action)
        match action:
            case AbortBatches(version):
                for batch in [batch for batch, current in self.batches.items() if current == version]:
                    await self.store.end(batch)
            case ChangeVersion(old, new, stale):
                for batch in [batch for batch, current in self.batches.items() if current == old]:
                    await self.store.change_version(batch, new, stale)
                    self.batches[batch] = new
            case DrainWorkers(names):
                for name in names:
                    await self.store.request_drain(name)

    async def results(self, batch: int) -> list[Result]:
        """Waits until a batch is complete and returns its results; asserts that whole ones have the script's tokens."""
        end = self.now() + 120
        while not (progress := await self.store.progress(batch)).complete:
            assert self.now() < end, f"batch {batch} does not end: {progress}, {await self.store.workers()}"
            await asyncio.sleep(0.1)
        found = [entry for entry in await self.store.results(batch, 0, 1000) if isinstance(entry, Result)]
        for result in found:
            if result.status is Status.OK:
                assert result.tokens == scripted_tokens(str(result.request.group), result.request.index, 0, LENGTH)
        return found

    async def close(self) -> None:
        self.controller.cancel()
        for worker in self.workers.values():
            worker.drain()
        await asyncio.gather(*self.tasks.values(), self.controller, return_exceptions=True)


def play(tmp_path: Path, story: Callable[[Fleet], Coroutine[Any, Any, None]], **model: Any) -> None:
    """Runs `story` on two workers, which work on a batch of the first version after a second. `model`: fields of the
    manifest's model."""

    async def main() -> None:
        fleet = Fleet(tmp_path, **model)
        await fleet.submit(0, "initial")
        fleet.start(0)
        fleet.start(1)
        await asyncio.sleep(1.0)
        await story(fleet)
        crashed = [task.exception() for task in fleet.tasks.values() if task.done() and not task.cancelled()]
        assert not [error for error in crashed if isinstance(error, AssertionError)]
        await fleet.close()

    run_virtual(main())
