"""Runs with planted causes: the worker loop on scripted engines in virtual time, written as run folders."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from openseer_core.ids import WorkerId
from openseer_core.manifest.parse import parse_job
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, ExtendReply, Finish, Reply
from openseer_core.worker.heartbeat import Heartbeat, HeartbeatReply
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.run_lines import RunRecord, SampleLine, Session
from openseer_driver.sampler import sample_now
from openseer_store.memory import MemoryStore
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.virtual_time import run_virtual
from tests.driver.sample_runs import result_line
from tests.worker.test_loop import SIZE, Scene

STEP = 0.02
LONGEST = 600
Lengths = list[list[int]]


def drawn(groups: int = 24, seed: int = 1) -> Lengths:
    """Lengths of groups, alike within each, with a tail as responses have."""
    chance = random.Random(seed)
    means = [min(LONGEST / 1.3, chance.lognormvariate(5.0, 0.6)) for _ in range(groups)]
    return [[max(4, int(mean * chance.uniform(0.7, 1.3))) for _ in range(SIZE)] for mean in means]


def document(policy: str = "context-aware", **scripted: Any) -> dict[str, Any]:
    """A job of two workers with four slots each."""
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "planted"},
        "spec": {
            "model": {
                "path": "none",
                "engine": "scripted",
                "scripted": {"stepSeconds": STEP, "stepSecondsPerRequest": 0.0005, "slots": 4} | scripted,
            },
            "prompts": {"path": "none"},
            "groupSize": SIZE,
            "sampling": {"maxTokens": 20_000, "forceLengths": True},
            "rollout": {"quantumTokens": 64, "policy": policy},
            "workers": {"replicas": 2},
        },
    }


class StallingStore(MemoryStore):
    """A store that gives no answer in the last four of each ten seconds, as on a host with an overloaded disk."""

    async def _stall(self) -> None:
        now = asyncio.get_running_loop().time()
        if now % 10 >= 6:
            await asyncio.sleep(10 - now % 10)

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        await self._stall()
        return await super().claim(worker, query)

    async def extend(self, worker: WorkerId, deltas: list[Delta], *arguments: Any, **keywords: Any) -> ExtendReply:  # pyright: ignore[reportIncompatibleMethodOverride] - it passes its arguments on
        await self._stall()
        return await super().extend(worker, deltas, *arguments, **keywords)

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        await self._stall()
        return await super().complete(worker, finishes)

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        await self._stall()
        return await super().heartbeat(worker, info)


def write_planted(
    path: Path,
    lengths: Lengths,
    job: dict[str, Any] | None = None,
    *,
    steps: Sequence[float] = (STEP, STEP),
    store: type[MemoryStore] = MemoryStore,
    story: Callable[["Played"], Coroutine[Any, Any, None]] | None = None,
) -> RunFolder:
    """Plays a run and writes its folder. `steps`: seconds per step of each worker, infinite for one that hangs.
    `story`: faults during the run."""

    async def main() -> RunFolder:
        played = Played(Scene(parse_job(job or document(), "planted"), lengths), steps)
        played.scene.store = store(asyncio.get_running_loop().time)
        await played.scene.submit()
        for index in range(len(steps)):
            played.start(index)
        aside = [asyncio.create_task(story(played))] if story is not None else []
        aside.append(asyncio.create_task(played.sample()))
        await played.scene.finish()
        lines = [result_line(result) for result in await played.scene.results()]
        for task in (*aside, *played.scene.tasks):
            task.cancel()
        await asyncio.gather(*aside, *played.scene.tasks, return_exceptions=True)
        return _write(path, job or document(), lines, played.samples)

    return run_virtual(main())


class Played:
    """A scene with workers of several speeds, sampled once a second."""

    def __init__(self, scene: Scene, steps: Sequence[float]) -> None:
        self.scene, self.samples = scene, list[SampleLine]()
        self._steps = steps

    def start(self, index: int) -> None:
        """A boot of that worker."""
        scripted, seconds = self.scene.job.spec.model.scripted, self._steps[index]
        if seconds == inf:
            engine = ScriptedEngine(scripted, most_steps=0)
        else:
            engine = ScriptedEngine(scripted.model_copy(update={"step_seconds": seconds}))
        self.scene.start(index, engine)

    async def sample(self) -> None:
        """Samples the fleet once a second, without end."""
        while True:
            self.samples.append(await sample_now(self.scene.store, asyncio.get_running_loop().time))
            await asyncio.sleep(1.0)


async def worker_0_dies(played: Played) -> None:
    """Worker 0 dies after ten seconds and boots again eight seconds later."""
    await asyncio.sleep(10.0)
    played.scene.tasks[0].cancel()
    await asyncio.sleep(8.0)
    played.start(0)


def _write(path: Path, described: dict[str, Any], lines: list[Any], samples: list[SampleLine]) -> RunFolder:
    folder = RunFolder(path)
    folder.create()
    session = Session(0.0, samples[-1].at + 1.0, described["spec"]["workers"]["replicas"])
    folder.write_run(RunRecord("planted", "sha256:0", described, "0", "complete", "", [session]))
    folder.job_file.write_text(json.dumps(described))
    with ResultsWriter(folder) as writer:
        writer.write(lines)
        writer.flush()
    folder.samples_file.write_bytes(b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))
    return folder
