"""Samples the fleet once a second: writes a line to samples.jsonl and calls the display."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.time_left import tokens_left
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import SampleLine, WorkerSample
from openseer_store.port import DriverStore

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0


async def sample_forever(
    store: DriverStore, folder: RunFolder, clock: Callable[[], float], on_sample: Callable[[SampleLine], None]
) -> None:
    """Samples the fleet every SAMPLE_SECONDS until cancelled. `clock`: the session's clock.

    Skips a line that cannot be written, because the writer of results reports a full disk. Logs a warning each time
    that the store becomes nearly full.
    """
    was_full = False
    while True:
        sample, memory = await asyncio.gather(sample_now(store, clock), store.memory())
        if memory.is_nearly_full and not was_full:
            log.warning("%s", memory.problem())
        was_full = memory.is_nearly_full
        await asyncio.to_thread(_append, folder, msgspec.json.encode(sample) + b"\n")
        on_sample(sample)
        await asyncio.sleep(SAMPLE_SECONDS)


async def sample_now(store: DriverStore, clock: Callable[[], float]) -> SampleLine:
    """Makes a sample from the store's batch and its workers with a fresh heartbeat. `clock`: the session's clock."""
    now, counts, statuses = await asyncio.gather(store.now(), store.progress(BATCH_JOB_BATCH), store.workers())
    return make_sample(now, counts, [status for status in statuses if status.is_fresh(now)], clock())


def make_sample(now: float, counts: BatchProgress, statuses: list[WorkerStatus], taken_at: float = 0.0) -> SampleLine:
    """Makes a sample. `inflight` is the store's count of the leases of `statuses`, also of a worker that died."""
    inflight = sum(status.inflight for status in statuses)
    return SampleLine(
        at=now,
        waiting=max(0, counts.requests - counts.closed - inflight),
        inflight=inflight,
        closed=counts.closed,
        requests=counts.requests,
        tokens=counts.tokens,
        taken_at=taken_at,
        tokens_left=tokens_left(counts),
        workers={
            status.name: _worker_sample(status, now) for status in sorted(statuses, key=lambda status: status.name)
        },
    )


def _worker_sample(status: WorkerStatus, now: float) -> WorkerSample:
    metrics = status.heartbeat.metrics
    return WorkerSample(
        state=status.heartbeat.state,
        inflight=status.inflight,
        slots=metrics.slots,
        kv_used=metrics.kv_used,
        kv_reserved=metrics.kv_reserved,
        preemptions=metrics.preemptions,
        tokens=metrics.tokens,
        running=metrics.running,
        gpu=metrics.gpus or None,
        drafting=metrics.speculation,
        drafts=dict(metrics.drafts.values),
        contexts=metrics.contexts,
        seconds=metrics.seconds,
        boot=status.boot,
        kv_tokens=metrics.kv_tokens,
        silent=round(max(0.0, now - status.seen_at), 3),
    )


def _append(folder: RunFolder, line: bytes) -> None:
    try:
        with folder.samples_file.open("ab") as file:
            file.write(line)
    except OSError:
        return
