"""A whole rollout with and without the KV pool, on two real engines, with little and with ample memory for KV.

    PYTHONPATH=benchmarks python benchmarks/kv_pool/rollouts.py

The same requests with the same forced lengths run through the whole product, on a random model of 22 million parameters
in float32. With small memory an engine has room for a few responses, so responses yield to each other. `round-robin`
binds each whole group to one engine, as trainers do. The first run is discarded, and each arm in turn is the first of a
seed; a ratio compares two runs of one seed.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.random_model import VOCABULARY, make_model
from support.rounds import folder_of, interval, order, ratios
from support.stamp import Stamp

from openseer_core.manifest.parse import parse_job
from openseer_driver.report.html import write_report
from openseer_driver.run_folder import RunFolder
from openseer_local.run.progress import ProgressDisplay
from openseer_local.run.runner import LocalRun, plan_run

LENGTHS = Path(__file__).resolve().parents[2] / "examples/tiny-model/lengths.json"
GROUP_SIZE, PROMPT_TOKENS, LONGEST, SLOTS, QUANTUM = 8, 64, 512, 16, 64
KV_BLOCKS = {"small": 40, "ample": 320}
"""Blocks of 32 tokens: for some five responses of an engine, and for all that its slots take."""
ARMS = ("round-robin", "none", "shared-directory")
TARGETS = {"small": 1.10, "ample": 0.99}
"""Target: ratio of the makespan without a pool to the makespan with it."""


def main() -> None:
    """Runs all arms over all seeds and prints a table for each size of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs="+", choices=tuple(KV_BLOCKS), default=list(KV_BLOCKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--pool", type=Path, default=Path("/dev/shm"), help="folder in which the pool is created")
    parser.add_argument("--quick", action="store_true", help="one seed of two groups with small memory")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.memory, options.seeds, options.groups = ["small"], 1, 2
    console, found = Console(width=130), dict[str, Any]()
    with tempfile.TemporaryDirectory(dir=options.pool) as scratch:
        model, pool = Path(scratch) / "model", Path(scratch) / "pool"
        make_model(model, layers=6, width=512)
        one_run(model, pool, ARMS[-1], options.memory[0], 0, options.groups)
        for memory in options.memory:
            runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
            for seed in range(options.seeds):
                for arm in order(ARMS, seed):
                    runs[arm].append(one_run(model, pool, arm, memory, seed, options.groups))
                    seconds = runs[arm][-1]["makespan_seconds"]
                    console.print(f"{memory}, seed {seed}, {arm}: {seconds:.1f} s", highlight=False)
            found[memory] = {arm: [facts(report) for report in reports] for arm, reports in runs.items()}
            console.print(table(memory, found[memory]))
    if options.json:
        settings = {"groups": options.groups, "slots": SLOTS, "quantum": QUANTUM, "blocks": KV_BLOCKS}
        options.json.write_text(
            json.dumps({"memory": found, "targets": TARGETS, **settings, **stamp.fields()}, indent=1)
        )


def one_run(model: Path, pool: Path, arm: str, memory: str, seed: int, groups: int) -> dict[str, Any]:
    """One run through the product's own runner; its report."""
    with folder_of(None, arm, seed) as folder:
        prompts = folder / "prompts.jsonl"
        write_prompts(prompts, seed, groups)
        document = manifest(model, prompts, pool, arm, KV_BLOCKS[memory])
        run = RunFolder(folder / "run")
        plan = plan_run(parse_job(document, "benchmark"), document, run, fresh=True)
        with ProgressDisplay(Console(file=sys.stderr), live=False) as progress:
            asyncio.run(LocalRun(plan, progress).execute())
        return json.loads(write_report(run).to_json())


def write_prompts(path: Path, seed: int, groups: int) -> None:
    """Writes groups drawn from the tiny model's sampled lengths, limited; prompts are random token ids."""
    source, chance = json.loads(LENGTHS.read_text())["groups"], random.Random(seed)
    lines: list[dict[str, Any]] = []
    for number, group in enumerate(chance.sample(source, groups)):
        tokens = [chance.randrange(4, VOCABULARY) for _ in range(PROMPT_TOKENS)]
        lengths = [min(LONGEST, 2 * length) for length in chance.sample(group["lengths"], GROUP_SIZE)]
        lines.append({"id": f"g{number}", "prompt_token_ids": tokens, "lengths": lengths})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def manifest(model: Path, prompts: Path, pool: Path, arm: str, blocks: int) -> dict[str, Any]:
    """The RolloutJob of one run."""
    size = {"max_model_len": PROMPT_TOKENS + LONGEST, "num_gpu_blocks_override": blocks + 1, "max_num_seqs": SLOTS}
    policy = "round-robin" if arm == "round-robin" else "context-aware"
    spec: dict[str, Any] = {
        "model": {"path": str(model), "dtype": "float32", "engineArgs": size},
        "prompts": {"path": str(prompts)},
        "groupSize": GROUP_SIZE,
        "sampling": {"maxTokens": LONGEST, "forceLengths": True},
        "rollout": {"policy": policy, "quantumTokens": QUANTUM},
        "speculation": {"enabled": False},
        "workers": {"replicas": 2, "maxInflight": SLOTS},
    }
    if arm == "shared-directory":
        spec["kvPool"] = {"backend": arm, "path": str(pool)}
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": f"bench-{arm}"},
        "spec": spec,
    }


def facts(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that is stored."""
    names = ("makespan_seconds", "tail_seconds", "tokens_per_second", "requeues", "moves", "preemptions", "contexts")
    return {name: report[name] for name in names}


def table(memory: str, arms: dict[str, list[dict[str, Any]]]) -> Table:
    """A row for each arm: medians over the seeds, and ratios within a seed."""
    result = Table(title=f"memory {memory}: {KV_BLOCKS[memory]} blocks of 32 tokens for each engine")
    columns = ("arm", "makespan s", "tail s", "× none", "× round-robin", "requeues", "computed again", "fetched", "MiB")
    for column in columns:
        result.add_column(column, justify="left" if column == "arm" else "right")
    seconds = {arm: [run["makespan_seconds"] for run in runs] for arm, runs in arms.items()}
    for arm, runs in arms.items():

        def middle(name: str, runs: list[dict[str, Any]] = runs) -> float:
            return statistics.median(run["contexts"][name] for run in runs)

        result.add_row(
            arm,
            f"{statistics.median(seconds[arm]):.1f}",
            f"{statistics.median(run['tail_seconds'] for run in runs):.1f}",
            str(interval(ratios(seconds["none"], seconds[arm]))),
            str(interval(ratios(seconds["round-robin"], seconds[arm]))),
            f"{statistics.median(run['requeues'] for run in runs):.0f}",
            f"{middle('recomputed'):,.0f}",
            f"{middle('fetched'):,.0f}",
            f"{middle('fetched_bytes') / 2**20:,.0f}",
        )
    return result


if __name__ == "__main__":
    main()
