"""Measures makespan and tail of one workload under every policy: same requests, same forced lengths, same engines.

    python benchmarks/rollout.py --engine scripted          16 scripted engines over a real Redis
    python benchmarks/rollout.py --engine scripted --pool   the same with a simulated KV pool
    python benchmarks/rollout.py --engine vllm              2 real vLLM engines, one core each

Lengths are real samples of the tiny model (examples/tiny-model/lengths.json), drawn per seed. Every run goes through
the whole product: driver, store, worker loop, engine. Time is counted from the first claim, so loading an engine does
not count. `round-robin` and `least-inflight` are trainers' present policies; the main result is the ratio to the better
one. `always full` is the bound of any order: the same number of tokens in responses of equal length, so that no engine
ever waits.

The first run is discarded, and each policy in turn is the first of a seed, because the speed of a machine drifts. A
ratio compares two runs of one seed; the table has the geometric mean over the seeds, with the 95 % interval.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.rounds import ALWAYS_FULL, folder_of, interval, order, ratios
from support.stamp import Stamp

from openseer_core.manifest.parse import parse_job
from openseer_driver.report.html import write_report
from openseer_driver.run_folder import RunFolder
from openseer_local.run.progress import ProgressDisplay
from openseer_local.run.runner import LocalRun, plan_run

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = ROOT / "examples/tiny-model/lengths.json"
MODEL = ROOT / "examples/tiny-model/model"
POLICIES = ("round-robin", "least-inflight", "fifo", "seer", "context-aware", "longest-first-oracle")
BASELINES = POLICIES[:2]
ORACLE = POLICIES[-1]
GROUP_SIZE = 8
PROMPT_TOKENS = 24
POOL = {"bytesPerToken": 131_072, "bytesPerSecond": 25e9}
"""Of scripted engines: 32 layers of 8 KV heads of 128 numbers of 2 bytes at 25 GB/s, 190,735 tokens a second."""

# Groups and engines. Requests are at least eight times the slots of all engines together.
SETTINGS: dict[str, dict[str, Any]] = {
    "scripted": {"workers": 16, "slots": 16, "groups": 512, "quantum": 256},
    "vllm": {"workers": 2, "slots": 16, "groups": 40, "quantum": 256},
}
QUICK: dict[str, dict[str, Any]] = {
    "scripted": {"workers": 4, "slots": 4, "groups": 16, "quantum": 128},
    "vllm": {"workers": 2, "slots": 8, "groups": 16, "quantum": 128},
}
QUICK_POLICIES = {"scripted": ("round-robin", "context-aware", ORACLE), "vllm": ("round-robin", "context-aware")}


def main() -> None:
    """Runs every policy with every seed and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("scripted", "vllm"), default="scripted")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument(
        "--pool",
        action="store_true",
        help="scripted engines fetch contexts of moved responses from a simulated KV pool",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed of a small workload, fewer policies")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    parser.add_argument("--keep", type=Path, help="folder in which the folder of each run is kept")
    options = parser.parse_args()
    if options.pool and options.engine != "scripted":
        parser.error("--pool: goes with --engine scripted alone; benchmarks/kv_pool/rollouts.py has vllm's pools")
    stamp = Stamp()
    settings = (QUICK if options.quick else SETTINGS)[options.engine]
    settings = settings | ({"scripted": {"pool": POOL}} if options.pool else {})
    seeds = range(1 if options.quick else options.seeds)
    policies = options.policies
    if options.quick and len(policies) == len(POLICIES):
        policies = QUICK_POLICIES[options.engine]
    arms = [*policies, ALWAYS_FULL]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    console = Console(width=130)
    with folder_of(None, policies[0], 0) as folder:
        warm_up = one_run(folder, options.engine, policies[0], 0, settings)
    console.print(f"warm-up, not counted: {warm_up['makespan_seconds']:.1f} s", highlight=False)
    for seed in seeds:
        for name in order(arms, seed):
            with folder_of(options.keep, name, seed) as folder:
                report = one_run(folder, options.engine, name, seed, settings)
            runs[name].append(report)
            console.print(f"seed {seed} {name}: {report['makespan_seconds']:.1f} s", highlight=False)
    measurements = summary(runs, settings, options.engine) | stamp.fields()
    console.print(table(measurements))
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def one_run(
    folder: Path, engine: str, policy: str, seed: int, settings: dict[str, Any], store: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Runs the workload of `seed` with the product's own runner; returns the report. `store`: as in a job's spec."""
    prompts = folder / "prompts.jsonl"
    write_prompts(prompts, seed, settings["groups"], alike=policy == ALWAYS_FULL)
    document = manifest(prompts, engine, "fifo" if policy == ALWAYS_FULL else policy, settings)
    document["spec"]["store"] = store or {}
    job = parse_job(document, "benchmark")
    run = RunFolder(folder / "run")
    plan = plan_run(job, document, run, fresh=True)
    with ProgressDisplay(Console(file=sys.stderr), live=False) as progress:
        asyncio.run(LocalRun(plan, progress).execute())
    return json.loads(write_report(run).to_json())


def write_prompts(path: Path, seed: int, groups: int, *, alike: bool) -> None:
    """Writes groups drawn from the sampled lengths; prompts are random token ids, since only lengths have an effect.
    `alike`: every response has the mean of those lengths."""
    source = json.loads(LENGTHS.read_text())["groups"]
    chance = random.Random(seed)
    drawn = chance.sample(source, groups) if groups <= len(source) else chance.choices(source, k=groups)
    lines: list[dict[str, Any]] = []
    for number, group in enumerate(drawn):
        tokens = [chance.randrange(4, 60) for _ in range(PROMPT_TOKENS)]
        lengths = chance.sample(group["lengths"], GROUP_SIZE)
        lines.append({"id": f"g{number}", "prompt_token_ids": tokens, "lengths": lengths})
    if alike:
        mean = round(statistics.mean(length for line in lines for length in line["lengths"]))
        lines = [line | {"lengths": [mean] * GROUP_SIZE} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def manifest(prompts: Path, engine: str, policy: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The RolloutJob of one run. The step-time model has the shape of a memory-bound decoder."""
    scripted = {"stepSeconds": 0.005, "stepSecondsPerRequest": 0.00003, "slots": settings["slots"], "kvBlocks": 100_000}
    scripted |= settings.get("scripted", {})
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": f"bench-{policy}"},
        "spec": {
            "model": {"path": str(MODEL), "engine": engine, "scripted": scripted},
            "prompts": {"path": str(prompts)},
            "groupSize": GROUP_SIZE,
            "sampling": {"maxTokens": 3072, "forceLengths": True},
            "rollout": {"policy": policy, "quantumTokens": settings["quantum"]},
            "workers": {"replicas": settings["workers"], "maxInflight": settings["slots"]},
        },
    }


def summary(runs: dict[str, list[dict[str, Any]]], settings: dict[str, Any], engine: str) -> dict[str, Any]:
    """Per policy the list over seeds of each measurement."""
    oracle = [run["makespan_seconds"] for run in runs.get(ORACLE, [])]
    full = [run["tokens_per_second"] for run in runs[ALWAYS_FULL]]
    policies: dict[str, Any] = {}
    for name, reports in runs.items():
        makespans = [run["makespan_seconds"] for run in reports]
        policies[name] = {
            "makespan_seconds": makespans,
            "tail_seconds": [run["tail_seconds"] for run in reports],
            "tokens_per_second": [run["tokens_per_second"] for run in reports],
            "preemptions": [run["preemptions"] for run in reports],
            "requeues": [run["requeues"] for run in reports],
            "contexts": [run["contexts"] for run in reports],
            "share_of_oracle": [best / own for best, own in zip(oracle, makespans, strict=False)],
            "share_of_bound": [run["tokens_per_second"] / most for run, most in zip(reports, full, strict=True)],
        }
    return {
        "engine": engine,
        "settings": settings,
        "policies": policies,
    }


def table(measurements: dict[str, Any]) -> Table:
    """Medians over the seeds, with the spread of the makespan, and the ratios within a seed."""
    result = Table(title=f"{measurements['engine']}: {measurements['settings']}")
    columns = (
        "policy",
        "makespan s",
        "spread s",
        "tail s",
        "of oracle",
        "of bound",
        "× better baseline",
        "× its tail",
        "requeues",
        "preempt.",
    )
    for column in columns:
        result.add_column(column, justify="left" if column == "policy" else "right")
    policies = measurements["policies"]
    baselines = [name for name in BASELINES if name in policies]
    best = min(baselines, key=lambda name: statistics.median(policies[name]["makespan_seconds"]), default=None)
    for name, row in policies.items():
        makespans, tails, share = row["makespan_seconds"], row["tail_seconds"], row["share_of_oracle"]
        ratio = tail_ratio = "–"
        if best is not None:
            ratio = str(interval(ratios(policies[best]["makespan_seconds"], makespans)))
            tail_ratio = str(interval(ratios(tails, policies[best]["tail_seconds"])))
        result.add_row(
            name,
            f"{statistics.median(makespans):.1f}",
            f"{min(makespans):.1f}–{max(makespans):.1f}",
            f"{statistics.median(tails):.1f}",
            f"{statistics.median(share):.1%}" if share else "–",
            f"{statistics.median(row['share_of_bound']):.1%}",
            ratio,
            tail_ratio,
            f"{statistics.median(row['requeues']):.0f}",
            str(sum(row["preemptions"])),
        )
    return result


if __name__ == "__main__":
    main()
