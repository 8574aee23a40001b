"""Measures the cost of `spec.store.fsync: always`: the queue's cycles and a run's throughput, paired with `everysec`.

    python benchmarks/durability.py

The queue's part measures whole cycles at the maximum rate, and p99 of a claim at a fixed rate, as store_queue.py does.
The run's part uses scripted engines and the whole product, as rollout.py does. Each round has both values of `fsync`,
one after the other. The disk's time of an fdatasync is measured too.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import rollout
import store_queue
from support.stamp import Stamp

from openseer_core.manifest.fleet import Fsync
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.redis_link import RedisLink

WAYS: tuple[Fsync, ...] = get_args(Fsync)
FIGURES = ("cycles_per_second", "paced_claim_p99_ms", "tokens_per_second", "makespan_seconds")
PACE_CYCLES_PER_SECOND = 1000.0
"""About the rate of 1,000 requests of 1,000 tokens at 1,000 tokens/s: a large fleet, far below the maximum rate."""
RUN = {"workers": 8, "slots": 16, "groups": 128, "quantum": 256}
QUICK_RUN = {"workers": 4, "slots": 4, "groups": 16, "quantum": 128}
SYNCS = 500
BLOCK_BYTES = 4096


def main() -> None:
    """Runs all rounds and prints medians and the ratios of the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8, help="processes of the queue's part, each one worker")
    parser.add_argument("--slots", type=int, default=32, help="concurrent requests of a client")
    parser.add_argument("--requests", type=int, default=40_000, help="requests that wait in the queue")
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of the queue's part")
    parser.add_argument("--quick", action="store_true", help="one round, little work")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.rounds, options.requests, options.seconds = 1, 10_000, 2.0
    run = QUICK_RUN if options.quick else RUN
    ways: dict[str, dict[str, list[float]]] = {way: {figure: [] for figure in FIGURES} for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS if number % 2 else reversed(WAYS):
            for figure, value in (asyncio.run(queue(way, options)) | one_run(way, number, run)).items():
                ways[way][figure].append(value)
            print(number, way, {figure: values[-1] for figure, values in ways[way].items()}, flush=True)
    measurements = {"ways": ways, "ratios": ratios(ways), "fdatasync_ms": disk(), "run": run} | stamp.fields()
    print(json.dumps({name: measurements[name] for name in ("ratios", "fdatasync_ms")}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1) + "\n")


async def queue(way: Fsync, options: argparse.Namespace) -> dict[str, float]:
    """Cycles per second at the maximum rate, and p99 of a claim at the fixed rate."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedRedis(Path(folder) / "store", way) as url:
            link, store = RedisLink(url, "{benchmark}"), await open_store(url, store_queue.JOB)
            found: dict[str, float] = {}
            for pace, figure, field in (
                (0.0, "cycles_per_second", "cycles_per_second"),
                (PACE_CYCLES_PER_SECOND, "paced_claim_p99_ms", "claim_p99_ms"),
            ):
                await store_queue.top_up(store, options.requests)
                await link.command("BGREWRITEAOF")
                await store_queue.settle(link)
                most = options.requests // 2 // options.clients
                plan = store_queue.Plan(figure, url, options.clients, options.slots, options.seconds, most, pace)
                found[figure] = (await store_queue.run_clients(plan))[field]
            await link.close()
            await store.close()
            return found


def one_run(way: Fsync, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Tokens per second and makespan of one run."""
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as folder:
        report = rollout.one_run(Path(folder), "scripted", "context-aware", seed, settings, {"fsync": way})
    return {name: report[name] for name in ("tokens_per_second", "makespan_seconds")}


def ratios(ways: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """The ratio `always` / `everysec` of each figure over the pairs: median, minimum, maximum."""
    found: dict[str, dict[str, float]] = {}
    for figure in FIGURES:
        pairs = [always / every for always, every in zip(ways["always"][figure], ways["everysec"][figure], strict=True)]
        spread = {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)}
        found[figure] = {name: round(value, 3) for name, value in spread.items()}
    return found


def disk() -> dict[str, float]:
    """Milliseconds of an fdatasync after an append of 4 KiB, in the folder of the stores."""
    times: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            os.write(file.fileno(), bytes(BLOCK_BYTES))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return {"p50": round(times[SYNCS // 2], 3), "p99": round(times[int(0.99 * SYNCS)], 3), "most": round(times[-1], 3)}


if __name__ == "__main__":
    main()
