"""Heartbeats with all optional fields: of a worker in a cluster, with a GPU and an engine that drafts."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openseer_core.manifest.job import RolloutJob
from openseer_core.worker.heartbeat import Heartbeat
from openseer_draft.drafter import Drafter
from openseer_store.memory import MemoryStore
from openseer_worker.hardware.telemetry import Telemetry
from openseer_worker.loop import Worker
from openseer_worker.settings import WorkerSettings
from tests.worker.fleet import Fleet, LoadingEngine, play

XID = 13
"""An Xid that a program causes; the GPU is sound."""
SICK_XID = 48


class DraftingEngine(LoadingEngine):
    """A scripted engine that reports the draft metrics of the real engine."""

    @property
    def drafts(self) -> bool:
        return True

    def metrics(self) -> dict[str, float | int | str]:
        drafter = Drafter(slots=1, max_tokens=4, memory_bytes=1 << 20)
        return {**super().metrics(), **drafter.metrics(), "drafts": "on"}


class GpuLibrary:
    """Replaces NVIDIA's library (NVML): one GPU with one Xid event."""

    def __init__(self) -> None:
        self.events = [SimpleNamespace(device=0, eventData=XID)]

    def __getattr__(self, name: str) -> Any:
        """Returns a call with a fixed answer, or 1 for a constant."""
        if name.startswith("NVML_") or name == "nvmlEventTypeXidCriticalError":
            return 1
        facts = SimpleNamespace(used=10, total=100, gpu=50)
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetIndex": 0,
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
        }

        def answer(*_: object) -> Any:
            return answers.get(name, facts)

        return answer

    def nvmlEventSetWait_v2(self, _events: object, _wait: int) -> Any:
        """Returns the one event; later calls raise TimeoutError."""
        if self.events:
            return self.events.pop()
        raise TimeoutError


async def beat_of(job: RolloutJob, telemetry: Any) -> tuple[list[str], Heartbeat]:
    """The states of a worker in order, and its last heartbeat. It runs for 3 s without requests, then drains."""
    states: list[str] = []
    last: list[Heartbeat] = []

    class Listening(MemoryStore):
        async def heartbeat(self, worker: Any, info: Heartbeat) -> Any:
            states.append(info.state)
            last.append(info)
            return await super().heartbeat(worker, info)

    settings = WorkerSettings(job, "", 0, node="node-1", pod="pod-uid")
    worker = Worker(
        settings, Listening(asyncio.get_running_loop().time), DraftingEngine(job.spec.model.scripted), telemetry
    )
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(3.0)
    worker.drain()
    await asyncio.gather(running, return_exceptions=True)
    return list(dict.fromkeys(states)), last[-1]


def full_beat(tmp_path: Path, *, sick: bool = False) -> tuple[list[str], Heartbeat]:
    """As `beat_of`, in virtual time. `sick`: its GPU has a fault."""
    heartbeats: list[tuple[list[str], Heartbeat]] = []
    gpus = Telemetry(GpuLibrary())
    while "gpu0_xid" not in gpus():
        pass

    def telemetry() -> dict[str, float | int | str]:
        return {**gpus(), **({"gpu0_xid": SICK_XID} if sick else {})}

    async def story(fleet: Fleet) -> None:
        heartbeats.append(await beat_of(fleet.job, telemetry))

    try:
        play(tmp_path, story)
    finally:
        gpus.close()
    return heartbeats[0]


def scripted_beats(tmp_path: Path) -> tuple[list[str], dict[str, Heartbeat]]:
    """The states and last heartbeats of two plain workers that serve a batch and then load new weights."""
    found: dict[str, Heartbeat] = {}
    states: set[str] = set()

    async def story(fleet: Fleet) -> None:
        await fleet.publish()
        for _ in range(200):
            await asyncio.sleep(0.1)
            for status in await fleet.store.workers():
                states.add(status.heartbeat.state)
                found[status.name] = status.heartbeat

    play(tmp_path, story)
    return sorted(states), found


def types_of(metrics: dict[str, float | int | str]) -> dict[str, str]:
    """The kind of each metric by its name: `number` or `text`."""
    return {name: "text" if isinstance(value, str) else "number" for name, value in sorted(metrics.items())}
