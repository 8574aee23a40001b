"""A whole rollout on 16 scripted engines with and without a KV pool, with little and with ample memory for KV.

    PYTHONPATH=benchmarks python benchmarks/kv_pool/scripted.py

The workload of benchmarks/rollout.py runs on the product's worker loop and reference queue in virtual time, so the
results do not depend on the machine. A context is computed at a given rate (--prefill, tokens per second), or fetched
from a simulated pool at 190,735 tokens per second. The engine does nothing else meanwhile. `round-robin` binds each
whole group to one engine, as trainers do; the oracle gets the true lengths. A ratio compares two runs of one seed.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rollout import POOL, QUICK, SETTINGS, manifest, write_prompts
from support.rounds import interval, ratios
from support.stamp import Stamp

from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.batch import OpenBatch, tail_start
from openseer_core.queue.messages import Result
from openseer_core.queue.placement import Placement
from openseer_core.tokens import pack_tokens
from openseer_core.worker.context_metrics import ContextCounts
from openseer_store.memory import MemoryStore
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings

VERSION = "initial"
KV_BLOCKS = {"small": 256, "ample": 100_000}
"""Blocks of 16 tokens: for the longest response or some five of mean length, and for all that the slots take."""
ARMS = {
    "round-robin": ("round-robin", False),
    "no pool": ("context-aware", False),
    "oracle, no pool": ("longest-first-oracle", False),
    "pool": ("context-aware", True),
    "oracle, pool": ("longest-first-oracle", True),
}
"""Policy, and whether there is a pool."""
TARGETS = {"small": 1.10, "ample": 0.99}
"""Target: ratio of the makespan without a pool to the makespan with it."""
OF_ORACLE, FEWER = 0.95, 0.9
"""Targets: the pool's speed as a fraction of the oracle's, and the saved fraction of recomputed context."""


def main() -> None:
    """Simulates all arms over all seeds and prints a table for each size of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs="+", choices=tuple(KV_BLOCKS), default=list(KV_BLOCKS))
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--groups", type=int, default=SETTINGS["scripted"]["groups"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--prefill", type=float, nargs="+", default=[20_000.0], help="rates of computing contexts, in tokens per second"
    )
    parser.add_argument("--quick", action="store_true", help="one seed of a small workload with small memory")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp, settings = Stamp(), SETTINGS["scripted"] | {"groups": options.groups}
    if options.quick:
        options.memory, options.seeds, settings = ["small"], 1, QUICK["scripted"]
    console, found = Console(width=150), list[dict[str, Any]]()
    for memory in options.memory:
        for prefill in options.prefill:
            arms: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
            for seed in range(options.seeds):
                for arm in arms:
                    policy, has_pool = ARMS[arm]
                    scripted: dict[str, Any] = {"kvBlocks": KV_BLOCKS[memory], "prefillTokensPerSecond": prefill}
                    scripted |= {"pool": POOL} if has_pool else {}
                    arms[arm].append(one_rollout(policy, seed, settings | {"scripted": scripted}))
                    console.print(f"{memory}, seed {seed}, {arm}: {arms[arm][-1]['makespan_seconds']:.1f} s")
            found.append({"memory": memory, "prefill_tokens_per_second": prefill, "arms": arms})
            console.print(table(found[-1]))
    if options.json:
        fields = {"targets": TARGETS, "of_oracle": OF_ORACLE, "fewer": FEWER, "pool": POOL, "blocks": KV_BLOCKS}
        options.json.write_text(
            json.dumps({"rollouts": found, "settings": settings, **fields, **stamp.fields()}, indent=1)
        )


def one_rollout(policy: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The outcome of the workload of `seed`."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        write_prompts(prompts, seed, settings["groups"], alike=False)
        groups = [json.loads(line) for line in prompts.read_text().splitlines()]
        job = parse_job(manifest(prompts, "scripted", policy, settings), "benchmark")
    return run_virtual(played(job, groups))


async def played(job: RolloutJob, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Simulates the rollout to its end."""
    store = MemoryStore(asyncio.get_running_loop().time)
    record, _ = await store.open_batch(OpenBatch(VERSION, "{}"))
    placement, sampling = Placement.of(job.spec.rollout, job.spec.workers), job.spec.sampling
    for ordinal, group in enumerate(groups):
        spec = placement.group(
            GroupId(record.number, group["id"]),
            VERSION,
            ordinal,
            pack_tokens(group["prompt_token_ids"]),
            sampling.max_tokens,
            len(group["lengths"]),
            0.0,
            sampling=dump_sampling(sampling),
            metadata="{}",
            lengths=tuple(group["lengths"]),
        )
        await store.submit([spec])
    await store.seal(record.number)
    engines = [ScriptedEngine(job.spec.model.scripted) for _ in range(job.spec.workers.replicas)]
    workers = [Worker(WorkerSettings(job, "", number), store, engine) for number, engine in enumerate(engines)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    while not (await store.progress(record.number)).complete:
        await asyncio.sleep(1.0)
    contexts = [ContextCounts.of_heartbeat(engine.metrics()).values() for engine in engines]
    preemptions = sum(int(engine.metrics()["preemptions"]) for engine in engines)
    for worker in workers:
        worker.drain()
    await asyncio.gather(*tasks)
    entries = await store.results(record.number, 0, 2 * len(groups) * (1 + job.spec.group_size))
    results = [entry for entry in entries if isinstance(entry, Result)]
    assert len(results) == sum(len(group["lengths"]) for group in groups)
    ends = sorted(result.finished_at for result in results)
    return {
        "makespan_seconds": round(ends[-1], 3),
        "tail_seconds": round(ends[-1] - tail_start(ends), 3),
        "requeues": sum(len(result.chunks) - 1 for result in results),
        "moves": sum(one.worker != next_.worker for result in results for one, next_ in pairwise(result.chunks)),
        "preemptions": preemptions,
        "contexts": {name: round(sum(counts[name] for counts in contexts), 3) for name in contexts[0]},
    }


def table(rollouts: dict[str, Any]) -> Table:
    """A row for each arm: medians over the seeds, and ratios within a seed."""
    memory, arms = rollouts["memory"], rollouts["arms"]
    blocks, prefill = KV_BLOCKS[memory], rollouts["prefill_tokens_per_second"]
    result = Table(title=f"memory {memory}: {blocks:,} blocks of 16 tokens; contexts at {prefill:,.0f} tokens/s")
    columns = ("arm", "makespan s", "tail s", "× no pool", "× round-robin", "of its oracle", "requeues", "moves")
    for column in (*columns, "computed again", "fetched", "fetch s"):
        result.add_column(column, justify="left" if column == "arm" else "right")
    seconds = {arm: [run["makespan_seconds"] for run in runs] for arm, runs in arms.items()}

    def times(other: str, arm: str) -> str:
        return str(interval(ratios(seconds[other], seconds[arm]))) if other in arms else "–"

    for arm, runs in arms.items():

        def middle(name: str, runs: list[dict[str, Any]] = runs) -> float:
            return statistics.median({**run, **run["contexts"]}[name] for run in runs)

        result.add_row(
            arm,
            f"{middle('makespan_seconds'):.1f}",
            f"{middle('tail_seconds'):.1f}",
            times("no pool", arm),
            times("round-robin", arm),
            times("oracle, pool" if ARMS[arm][1] else "oracle, no pool", arm),
            *(f"{middle(name):,.0f}" for name in ("requeues", "moves", "recomputed", "fetched")),
            f"{middle('fetch_seconds'):.1f}",
        )
    return result


if __name__ == "__main__":
    main()
