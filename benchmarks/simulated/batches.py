"""Measures the makespan of each of several queued batches of one priority, and of all together, under two orders.

    PYTHONPATH=benchmarks python benchmarks/simulated/batches.py

A fleet of scripted engines runs on the reference store in virtual time, so only the order has an effect. `by age`: the
older batch goes first and the next one uses the slots that it leaves free. `mixed`: the order of one batch, in which
probes and long groups of newer batches overtake. Both orders have the same lengths.
"""

import argparse
import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.stamp import Stamp

from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import Placement
from openseer_core.tokens import pack_tokens
from openseer_store.memory import MemoryStore
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings

VERSION = "initial"
MAX_TOKENS = 2048
STEP_SECONDS = 0.04
SLOTS = 16


def main() -> None:
    """Measures both orders with 2, 4 and 8 batches and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--groups", type=int, default=24, help="groups of each batch, with 8 requests each")
    parser.add_argument("--quick", action="store_true", help="two batches with fewer groups")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    counts = [2] if options.quick else [1, 2, 4, 8]
    groups = 6 if options.quick else options.groups
    rows: dict[str, dict[str, list[float]]] = {}
    for count in counts:
        rows[str(count)] = {
            order: run_virtual(makespans(options.workers, count, groups, by_age=order == "by age"))
            for order in ("by age", "mixed")
        }
        for order, seconds in rows[str(count)].items():
            print(f"{count} batches, {order:7}", *(f"{end:7.0f} s" for end in seconds), f"  all {max(seconds):.0f} s")
    if options.json:
        fields = {"makespan_seconds": rows, "workers": options.workers, "slots": SLOTS, "groups": groups}
        options.json.write_text(json.dumps(fields | stamp.fields(), indent=1) + "\n")


async def makespans(workers: int, batches: int, groups: int, *, by_age: bool) -> list[float]:
    """Seconds from the start to the end of each batch, the oldest first; all batches are opened at the start."""
    job = a_job(workers)
    loop = asyncio.get_running_loop()
    store, lengths = MemoryStore(loop.time), random.Random(0)
    placement = Placement.of(job.spec.rollout, job.spec.workers)
    numbers: list[int] = []
    for _ in range(batches):
        record, _ = await store.open_batch(OpenBatch(VERSION, "{}"))
        numbers.append(record.number)
        specs = [a_group(job, placement, record.number, ordinal, lengths, by_age) for ordinal in range(groups)]
        await store.submit(specs)
        await store.seal(record.number)
    running = [
        Worker(WorkerSettings(job, "", n), store, ScriptedEngine(job.spec.model.scripted)) for n in range(workers)
    ]
    tasks = [asyncio.create_task(worker.run()) for worker in running]
    while not all([(await store.progress(number)).complete for number in numbers]):
        await asyncio.sleep(1.0)
    for worker in running:
        worker.drain()
    await asyncio.gather(*tasks)
    records = [await store.batch(number) for number in numbers]
    return [round(record.ended_at, 1) for record in records if record is not None]


def a_job(workers: int) -> RolloutJob:
    """A job on scripted engines with a constant step time."""
    scripted = {"stepSeconds": STEP_SECONDS, "slots": SLOTS}
    document: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "batches"},
        "spec": {
            "model": {"path": "none", "engine": "scripted", "scripted": scripted},
            "prompts": {"path": "none"},
            "groupSize": 8,
            "sampling": {"maxTokens": MAX_TOKENS, "forceLengths": True},
            "rollout": {"quantumTokens": 128, "checkpointSeconds": 1.0},
            "workers": {"replicas": workers},
        },
    }
    return parse_job(document, "benchmark")


def a_group(
    job: RolloutJob, placement: Placement, batch: int, ordinal: int, lengths: random.Random, by_age: bool
) -> GroupSpec:
    """A group whose responses have similar lengths, most of them short."""
    typical = lengths.lognormvariate(5.5, 0.9)
    drawn = tuple(min(MAX_TOKENS, max(8, int(typical * lengths.uniform(0.7, 1.3)))) for _ in range(8))
    spec = placement.group(
        GroupId(batch, f"g{ordinal}"),
        VERSION,
        ordinal,
        pack_tokens([1, 2, 3]),
        MAX_TOKENS,
        len(drawn),
        0.0,
        sampling=dump_sampling(job.spec.sampling),
        metadata="{}",
        batch_ordinal=batch if by_age else 0,
    )
    return replace(spec, lengths=drawn)


if __name__ == "__main__":
    main()
