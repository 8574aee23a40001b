"""Tests whether dividing and moving responses changes their tokens at temperature 0, in float32 and in bfloat16.

    python benchmarks/chunking.py

The same prompts are generated whole on one real engine, and in chunks that move between two engines. In bfloat16 two
tokens may have almost the same probability, and the composition of the engine's batch then decides between them; from
that token on the responses differ.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.stamp import Stamp

from openseer_core.manifest.parse import parse_job
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine
from openseer_local.run.progress import ProgressDisplay
from openseer_local.run.runner import LocalRun, plan_run

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples/tiny-model/model"
PROMPTS = ROOT / "examples/tiny-model/prompts.jsonl"
GROUP_SIZE = 4
WHOLE = {"rollout": {"policy": "fifo", "quantumTokens": 65536}, "workers": {"replicas": 1}}
CHUNKED = {
    "rollout": {"quantumTokens": 16, "checkpointSeconds": 0.05},
    "workers": {"replicas": 2, "maxInflight": 2},
}


def main() -> None:
    """Compares the responses in each number format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=512, help="maximum tokens of a response")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter responses")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.groups, options.tokens = 4, 128
    measurements: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        whole = responses(dtype, WHOLE, options.groups, options.tokens)
        chunked = responses(dtype, CHUNKED, options.groups, options.tokens)
        measurements[dtype] = compared(whole, chunked)
    table = Table("format", "responses", "moved", "chunks", "identical", "first difference at token")
    for dtype, row in measurements.items():
        first = ", ".join(map(str, row["first_differences"])) or "–"
        table.add_row(dtype, *(str(row[name]) for name in ("responses", "moved", "chunks", "identical")), first)
    Console(width=110).print(table)
    measurements |= stamp.fields()
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def responses(dtype: str, division: dict[str, Any], groups: int, tokens: int) -> dict[Any, ResultLine]:
    """All responses of one run, by request."""
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        prompts = Path(path) / "prompts.jsonl"
        prompts.write_text("\n".join(PROMPTS.read_text().splitlines()[:groups]) + "\n")
        document = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "chunking"},
            "spec": {
                "model": {"path": str(MODEL), "dtype": dtype},
                "prompts": {"path": str(prompts)},
                "groupSize": GROUP_SIZE,
                "sampling": {"temperature": 0.0, "maxTokens": tokens, "ignoreEos": True},
                **division,
            },
        }
        job, folder = parse_job(document, "benchmark"), RunFolder(Path(path) / "run")
        plan = plan_run(job, document, folder, fresh=True)
        with ProgressDisplay(Console(file=sys.stderr), live=False) as progress:
            asyncio.run(LocalRun(plan, progress).execute())
        return {line.key: line for line in folder.results()}


def compared(whole: dict[Any, ResultLine], chunked: dict[Any, ResultLine]) -> dict[str, Any]:
    """The number of identical responses, and the position of the first different token of each of the others."""
    pairs = [(line.token_ids, chunked[key].token_ids) for key, line in whole.items()]
    differences = [
        next(position for position, (left, right) in enumerate(zip(ids, others, strict=True)) if left != right)
        for ids, others in pairs
        if ids != others
    ]
    return {
        "responses": len(pairs),
        "moved": sum(len(line.workers) > 1 for line in chunked.values()),
        "chunks": sum(len(line.chunks) for line in chunked.values()),
        "identical": len(pairs) - len(differences),
        "first_differences": sorted(differences),
    }


if __name__ == "__main__":
    main()
