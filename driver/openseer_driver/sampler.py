"""Once a second a picture of the fleet: a line of samples.jsonl, and news for whoever shows it."""

import asyncio
from collections.abc import Callable

import msgspec

from openseer_core.model.request_queue import WORKER_TTL_SECONDS
from openseer_core.queue.messages import BatchProgress
from openseer_core.worker.draft_metrics import DraftMetrics
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import SampleLine, WorkerSample
from openseer_driver.submission import BATCH
from openseer_store.port import DriverStore

SAMPLE_SECONDS = 1.0


async def sample_forever(store: DriverStore, folder: RunFolder, tell: Callable[[SampleLine], None]) -> None:
    """Samples until cancelled. Telemetry: a line that cannot be written is left out, results report a full disk."""
    while True:
        now, counts, statuses = await asyncio.gather(store.now(), store.progress(BATCH), store.workers())
        fresh = [one for one in statuses if now - one.seen_at < WORKER_TTL_SECONDS]
        sample = make_sample(now, counts, fresh)
        await asyncio.to_thread(_append, folder, msgspec.json.encode(sample) + b"\n")
        tell(sample)
        await asyncio.sleep(SAMPLE_SECONDS)


def make_sample(now: float, counts: BatchProgress, statuses: list[WorkerStatus]) -> SampleLine:
    """The fleet at one moment. `inflight` is what the store counts, so a dead worker's leases are in it."""
    inflight = sum(status.inflight for status in statuses)
    return SampleLine(
        at=now,
        waiting=max(0, counts.requests - counts.closed - inflight),
        inflight=inflight,
        closed=counts.closed,
        requests=counts.requests,
        tokens=counts.tokens,
        workers={status.name: _worker_sample(status) for status in sorted(statuses, key=lambda one: one.name)},
    )


def _worker_sample(status: WorkerStatus) -> WorkerSample:
    figures = status.heartbeat.metrics
    gpu = {name: value for name, value in figures.items() if name.startswith("gpu")}
    return WorkerSample(
        state=status.heartbeat.state,
        inflight=status.inflight,
        slots=int(figures.get("slots", 0)),
        kv_used=float(figures.get("kv_used", 0.0)),
        kv_reserved=float(figures.get("kv_reserved", 0.0)),
        preemptions=int(figures.get("preemptions", 0)),
        tokens=int(figures.get("tokens", 0)),
        running=int(figures.get("running", 0)),
        gpu=gpu or None,
        drafting=str(figures.get("drafts", "")),
        drafts=dict(DraftMetrics.of(figures).values),
    )


def _append(folder: RunFolder, line: bytes) -> None:
    try:
        with folder.samples_file.open("ab") as file:
            file.write(line)
    except OSError:
        return
