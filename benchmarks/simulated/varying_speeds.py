"""Measures the cost of the rule that the tail leaves slow workers, if no worker is slow but all speeds vary at random.

    PYTHONPATH=benchmarks python benchmarks/simulated/varying_speeds.py

Four workers with scripted engines on the in-process store, in virtual time. At a fixed interval each engine's step
takes 0.6 to 1.4 times as long as usual. Makespans are divided by the makespan of the same seed without the rule.
"""

import argparse
import asyncio
import json
from pathlib import Path
from random import Random
from statistics import median
from typing import Any
from unittest.mock import patch

from support.stamp import Stamp

from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob, Scripted
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue import messages
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView
from openseer_core.queue.messages import Result
from openseer_core.queue.policy import policy
from openseer_core.tokens import pack_tokens
from openseer_store.memory import MemoryStore
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings

WORKERS, GROUPS, SIZE = 4, 24, 4
LONGEST, MEAN = 6000, 1200
VARIES = 0.4
INTERVALS = (0.8, 3.5, 15.0)
"""Intervals at which a speed changes, in seconds."""
NEVER = 1e9
"""Value of FASTER that turns the rule off: no worker is faster by this factor."""


class VaryingEngine(ScriptedEngine):
    """A scripted engine whose step time changes at random at each interval, by up to ±VARIES."""

    def __init__(self, scripted: Scripted, seed: str, interval: float) -> None:
        super().__init__(scripted)
        self._seed, self._interval = seed, interval

    def _plain_step(self) -> float:
        now = asyncio.get_running_loop().time()
        factor = Random(f"{self._seed} {int(now / self._interval)}").uniform(1 - VARIES, 1 + VARIES)
        return factor * super()._plain_step()


def main() -> None:
    """Runs all rollouts and prints a line for each interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp, rows = Stamp(), list[dict[str, Any]]()
    for interval in INTERVALS:
        ratios, moves = list[float](), {"on": 0, "off": 0}
        for seed in range(1, (1 if options.quick else options.seeds) + 1):
            seconds = dict[str, float]()
            for rule, faster in (("on", messages.FASTER), ("off", NEVER)):
                with patch.object(messages, "FASTER", faster):
                    seconds[rule], moved = run_virtual(rollout(seed, interval))
                moves[rule] += moved
                row = {"interval": interval, "seed": seed, "rule": rule, "seconds": seconds[rule], "moves": moved}
                rows.append(row)
            ratios.append(seconds["on"] / seconds["off"])
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"every {interval:g} s: {spread} × as long; moves {moves['on']} against {moves['off']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows} | stamp.fields(), indent=1))


async def rollout(seed: int, interval: float) -> tuple[float, int]:
    """Seconds of one rollout, and its number of moves between workers."""
    loop, random, job = asyncio.get_running_loop(), Random(seed), manifest()
    store = MemoryStore(loop.time)
    for ordinal in range(GROUPS):
        lengths = [min(LONGEST, 1 + int(random.expovariate(1 / MEAN))) for _ in range(SIZE)]
        await store.submit([group(job, ordinal, lengths)])
    await store.seal(0)
    began = loop.time()
    workers = [
        Worker(
            WorkerSettings(job, "", index),
            store,
            VaryingEngine(job.spec.model.scripted, f"{seed} {index}", interval),
        )
        for index in range(WORKERS)
    ]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    while not (await store.progress(0)).complete:
        await asyncio.sleep(0.1)
    seconds = loop.time() - began
    for worker in workers:
        worker.drain()
    await asyncio.gather(*tasks)
    results = [entry for entry in await store.results(0, 0, GROUPS * SIZE) if isinstance(entry, Result)]
    return seconds, sum(len(result.chunks) - 1 for result in results)


def manifest() -> RolloutJob:
    """A job with four engines of six slots each."""
    scripted = {"stepSeconds": 0.01, "stepSecondsPerRequest": 0.0005, "slots": 6, "maxModelLen": LONGEST + 100}
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "varying"},
        "spec": {
            "model": {"path": "none", "engine": "scripted", "scripted": scripted},
            "prompts": {"path": "none"},
            "groupSize": SIZE,
            "sampling": {"maxTokens": LONGEST, "forceLengths": True},
            "rollout": {"quantumTokens": 256},
            "workers": {"replicas": WORKERS},
        },
    }
    return parse_job(document, "benchmark")


def group(job: RolloutJob, ordinal: int, lengths: list[int]) -> GroupSpec:
    """A group whose responses have the given lengths, in tokens."""
    chosen, longest, name = policy(job.spec.rollout.policy), job.spec.sampling.max_tokens, GroupId(0, f"g{ordinal}")
    return GroupSpec(
        name,
        "initial",
        ordinal,
        pack_tokens([1, 2, 3]),
        longest,
        tuple(chosen.bias(length) for length in lengths),
        (SHARED_LANE,) * SIZE,
        chosen.priority(GroupView(name, 0, ordinal, len(lengths), longest, 0.0)),
        0.0,
        tuple(lengths),
        dump_sampling(job.spec.sampling),
    )


if __name__ == "__main__":
    main()
