"""Measures the cost of capturing routed experts: whole rollouts with and without it, in turns, on a real engine.

    PYTHONPATH=benchmarks python benchmarks/routing/overhead.py

The same requests with the same forced lengths run through the whole product, on a random mixture of experts in float32.
The first run is discarded. Each round runs both arms, with each arm in turn as the first; a ratio compares the two runs
of a round. `--drafts`: both arms draft.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from support.random_model import VOCABULARY, make_mixture
from support.rounds import folder_of, interval, order, ratios
from support.stamp import Stamp

from openseer_core.manifest.parse import parse_job
from openseer_driver.report.html import write_report
from openseer_driver.run_folder import RunFolder
from openseer_local.run.progress import ProgressDisplay
from openseer_local.run.runner import LocalRun, plan_run

ARMS = ("without", "capture")
GROUP_SIZE, PROMPT_TOKENS, LENGTH, SLOTS = 8, 64, 384, 16
TARGET = 0.97
"""Target: ratio of tokens per second with capture to those without."""


def main() -> None:
    """Runs the rounds and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--drafts", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one round of one group")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.groups = 1, 1
    stamp, console = Stamp(), Console(width=120)
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    gaps = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        model = Path(scratch) / "model"
        parameters = make_mixture(model)
        one_run(model, ARMS[-1], 0, options)
        for number in range(options.rounds):
            for arm in order(ARMS, number):
                rate, missing = one_run(model, arm, number, options)
                rates[arm].append(rate)
                gaps += missing
                console.print(f"round {number}, {arm}: {rate:,.0f} tokens/s", highlight=False)
    ratio = interval(ratios(rates["capture"], rates["without"]))
    console.print(f"{parameters:,} parameters; tokens/s with capture: {ratio} × those without; rows missing: {gaps}")
    if options.json:
        found = {"tokens_per_second": rates, "ratio": str(ratio), "target": TARGET, "gaps": gaps}
        settings = {"groups": options.groups, "drafts": options.drafts, "slots": SLOTS, "length": LENGTH}
        options.json.write_text(json.dumps({**found, **settings, **stamp.fields()}, indent=1))


def one_run(model: Path, arm: str, seed: int, options: argparse.Namespace) -> tuple[float, int]:
    """One run with the product's own runner; returns tokens per second and the number of missing rows."""
    with folder_of(None, arm, seed) as folder:
        prompts = folder / "prompts.jsonl"
        write_prompts(prompts, seed, options.groups)
        document = manifest(model, prompts, arm, drafts=options.drafts)
        run = RunFolder(folder / "run")
        plan = plan_run(parse_job(document, "benchmark"), document, run, fresh=True)
        with ProgressDisplay(Console(file=sys.stderr), live=False) as progress:
            asyncio.run(LocalRun(plan, progress).execute())
        routed = [line.routed_experts for line in run.results()]
        report = json.loads(write_report(run).to_json())
        return report["tokens_per_second"], sum(line.gaps for line in routed if line is not None)


def write_prompts(path: Path, seed: int, groups: int) -> None:
    """Writes prompts whose tokens differ between groups."""
    lines = [
        {
            "id": f"g{number}",
            "prompt_token_ids": [
                4 + (31 * seed + 7 * number + place) % (VOCABULARY - 4) for place in range(PROMPT_TOKENS)
            ],
            "lengths": [LENGTH] * GROUP_SIZE,
        }
        for number in range(groups)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def manifest(model: Path, prompts: Path, arm: str, *, drafts: bool) -> dict[str, Any]:
    """The RolloutJob of one run."""
    size = {"max_model_len": PROMPT_TOKENS + LENGTH, "num_gpu_blocks_override": 321, "max_num_seqs": SLOTS}
    spec: dict[str, Any] = {
        "model": {"path": str(model), "dtype": "float32", "engineArgs": size},
        "prompts": {"path": str(prompts)},
        "groupSize": GROUP_SIZE,
        "sampling": {"maxTokens": LENGTH, "forceLengths": True},
        "speculation": {"enabled": drafts},
        "workers": {"replicas": 1, "maxInflight": SLOTS},
    }
    if arm == "capture":
        spec["routing"] = {"capture": {}}
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": f"bench-{arm}"},
        "spec": spec,
    }


if __name__ == "__main__":
    main()
