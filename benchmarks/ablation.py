"""Measures the gain of each part of a whole rollout on two real engines: division, order, drafts, as in the Seer paper.

    python benchmarks/ablation.py

Every run uses the whole product (driver, store, worker loop, engine, one core each). Lengths are not forced: the tiny
model samples at temperature 1, since drafts need real text. So runs of the same prompts have different responses, and
the table has tokens per second in addition to the makespan. Time is counted from the first claim.
`always full` is the bound of any order without drafts: responses of equal length, so that no engine ever waits.

The first run is discarded, and each arm in turn is the first of a seed, because the speed of a machine drifts. A ratio
compares two runs of one seed; the table has the geometric mean over the seeds, with the 95 % interval.
"""

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.rounds import ALWAYS_FULL, folder_of, interval, order, ratios
from support.stamp import Stamp
from support.tiny_rollouts import MODEL, prompts

from openseer_core.manifest.parse import parse_job
from openseer_driver.report.html import write_report
from openseer_driver.run_folder import RunFolder
from openseer_local.run.progress import ProgressDisplay
from openseer_local.run.runner import LocalRun, plan_run

BASE = "round-robin"
DRAFTS = "+ grouped drafts"
ARMS: dict[str, tuple[str, bool]] = {
    BASE: ("round-robin", False),
    "+ divided": ("fifo", False),
    "+ the paper's order": ("seer", False),
    "+ context-aware": ("context-aware", False),
    DRAFTS: ("context-aware", True),
    "round-robin with drafts": ("round-robin", True),
    ALWAYS_FULL: ("fifo", False),
}
"""Policy, and whether there are drafts; each line but the last two adds one thing to the line before, or
puts our order in place of the paper's."""
QUICK_ARMS = (BASE, "+ context-aware", DRAFTS, ALWAYS_FULL)
GROUP_SIZE = 8
MOST_TOKENS = 3072
SETTINGS = {"workers": 2, "slots": 16, "groups": 40, "quantum": 256}
QUICK = {"workers": 2, "slots": 8, "groups": 8, "quantum": 128}


def main() -> None:
    """Runs every arm with every seed and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed of a small workload, fewer arms")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    parser.add_argument("--keep", type=Path, help="folder in which the folder of each run is kept")
    options = parser.parse_args()
    stamp = Stamp()
    settings = QUICK if options.quick else SETTINGS
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in (QUICK_ARMS if options.quick else ARMS)}
    seeds = range(1 if options.quick else options.seeds)
    console = Console(width=130)
    with folder_of(None, BASE, 0) as folder:
        warm_up = one_run(folder, BASE, 0, settings)
    mean = round(warm_up["lengths"]["mean"])
    console.print(f"warm-up, not counted: {warm_up['makespan_seconds']:.1f} s", highlight=False)
    for seed in seeds:
        for name in order(list(arms), seed):
            with folder_of(options.keep, name, seed) as folder:
                report = one_run(folder, name, seed, settings, mean)
            arms[name].append(report)
            console.print(
                f"seed {seed} {name}: {report['makespan_seconds']:.1f} s, {report['tokens_per_second']:,.0f} tok/s, "
                f"drafts {report['drafts'] or '–'}",
                highlight=False,
            )
    measurements = summary(arms, settings) | stamp.fields()
    console.print(table(measurements))
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def one_run(folder: Path, arm: str, seed: int, settings: dict[str, int], mean: int = 1) -> dict[str, Any]:
    """Runs the prompts of `seed` with the product's own runner and returns the report. `mean`: the length of each
    response in the arm of the bound, in tokens."""
    source = folder / "prompts.jsonl"
    lines = [{"id": f"g{n}", "prompt_token_ids": ids} for n, (_, ids) in enumerate(prompts(settings["groups"], seed))]
    if arm == ALWAYS_FULL:
        lines = [line | {"lengths": [mean] * GROUP_SIZE} for line in lines]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = manifest(source, arm, settings)
    run = RunFolder(folder / "run")
    plan = plan_run(parse_job(document, "benchmark"), document, run, fresh=True)
    with ProgressDisplay(Console(file=sys.stderr), live=False) as progress:
        asyncio.run(LocalRun(plan, progress).execute())
    return json.loads(write_report(run).to_json())


def manifest(source: Path, arm: str, settings: dict[str, int]) -> dict[str, Any]:
    """The RolloutJob of one run."""
    policy, drafts = ARMS[arm]
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "ablation"},
        "spec": {
            "model": {"path": str(MODEL)},
            "prompts": {"path": str(source)},
            "groupSize": GROUP_SIZE,
            "sampling": {"temperature": 1.0, "maxTokens": MOST_TOKENS, "forceLengths": arm == ALWAYS_FULL},
            "rollout": {"policy": policy, "quantumTokens": settings["quantum"]},
            "speculation": {"enabled": drafts},
            "workers": {"replicas": settings["workers"], "maxInflight": settings["slots"]},
        },
    }


def summary(arms: dict[str, list[dict[str, Any]]], settings: dict[str, int]) -> dict[str, Any]:
    """Per arm the list over seeds of each measurement."""
    names = ("makespan_seconds", "tail_seconds", "tokens_per_second", "tokens_total", "requeues", "drafts")
    return {
        "settings": settings,
        "arms": {
            arm: {
                **{name: [report[name] for report in reports] for name in names},
                "tokens_per_step": [_drafting(report, "acceptance_length", 1.0) for report in reports],
                "acceptance": [_drafting(report, "acceptance", 0.0) for report in reports],
                "by_references": [_drafting(report, "by_references", None) for report in reports],
                "shared_tokens": [_drafting(report, "shared_tokens", 0.0) for report in reports],
            }
            for arm, reports in arms.items()
        },
    }


def _drafting(report: dict[str, Any], name: str, without: float | None) -> Any:
    return report["drafting"][name] if report["drafting"] else without


def table(measurements: dict[str, Any]) -> Table:
    """Medians over the seeds, and the ratios within a seed."""
    result = Table(title=f"two vLLM engines: {measurements['settings']}")
    columns = "|makespan s|spread s|× shorter|tok/s|× tok/s|of bound|tail s|× tail|tokens a step"
    for column in columns.split("|"):
        result.add_column(column, justify="right" if column else "left")
    base, full = measurements["arms"][BASE], measurements["arms"][ALWAYS_FULL]
    for arm, row in measurements["arms"].items():
        makespans, rates, tails = row["makespan_seconds"], row["tokens_per_second"], row["tail_seconds"]
        result.add_row(
            arm,
            f"{statistics.median(makespans):.1f}",
            f"{min(makespans):.1f}–{max(makespans):.1f}",
            str(interval(ratios(base["makespan_seconds"], makespans))),
            f"{statistics.median(rates):,.0f}",
            str(interval(ratios(rates, base["tokens_per_second"]))),
            f"{statistics.median(ratios(rates, full['tokens_per_second'])):.2f}",
            f"{statistics.median(tails):.1f}",
            str(interval(ratios(tails, base["tail_seconds"]))),
            f"{statistics.median(row['tokens_per_step']):.2f}",
        )
    steps = statistics.geometric_mean(measurements["arms"][DRAFTS]["tokens_per_step"])
    bound = interval([steps * ratio for ratio in ratios(full["tokens_per_second"], base["tokens_per_second"])])
    result.caption = f"always full, each step with the {steps:.2f} tokens of '{DRAFTS}' and no dearer: {bound} × tok/s"
    return result


if __name__ == "__main__":
    main()
