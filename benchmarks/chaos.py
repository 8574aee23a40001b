"""Injects random faults into whole runs; counts lost, duplicated and wrong results, and measures the faults' cost.

    python benchmarks/chaos.py --runs 44

Each run is one seed of tests/chaos over scripted engines, in mode batch or serve, with a fault every five seconds on
average. First the same number of concurrent runs has no faults; makespans are divided by the makespan of these runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.stamp import Stamp

ROOT = Path(__file__).resolve().parent.parent
MODES = ("batch", "serve")
RUN_SECONDS = 900.0
"""Longest time of one run."""
Verdict = dict[str, Any]


def main() -> int:
    """Runs all seeds and returns the exit code: 1 if a guarantee was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=44, help="number of seeds; the two modes alternate")
    parser.add_argument("--seconds", type=float, default=60.0, help="approximate seconds of work of a run")
    parser.add_argument("--mean", type=float, default=5.0, help="mean seconds between two faults")
    parser.add_argument("--at-once", type=int, default=2, help="number of concurrent runs")
    parser.add_argument("--quick", action="store_true", help="two short runs")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds, options.mean = 2, 8.0, 1.5
    stamp = Stamp()
    words = ("--seconds", str(options.seconds), "--mean", str(options.mean))
    first, count = int(options.seed), int(options.runs)
    with ThreadPoolExecutor(options.at_once) as pool:
        calm_runs = [pool.submit(played, mode, 0, *words, "--calm") for mode in MODES]
        calm = [run.result() for run in calm_runs]
        seeded = [pool.submit(played, MODES[seed % len(MODES)], seed, *words) for seed in range(first, first + count)]
        runs = [run.result() for run in seeded]
    measured = summed(calm, runs)
    table = Table("", "", title="faults over scripted engines", show_header=False)
    for name, value in measured.items():
        table.add_row(name.replace("_", " "), str(value))
    Console(width=110).print(table)
    if options.json:
        content = {**measured, "runs_in_full": runs, **stamp.fields()}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(run["ok"] for run in runs) else 1


def played(mode: str, seed: int, *words: str) -> Verdict:
    """One run in a separate process, and its outcome."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "verdict"
        command = [sys.executable, "-m", "tests.chaos.play", "--mode", mode, "--seed", str(seed), *words]
        done = subprocess.run(
            [*command, "--output", str(output)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if not output.exists():
            raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr}")
        verdict: Verdict = json.loads(output.read_text())
        return verdict


def summed(calm: list[Verdict], runs: list[Verdict]) -> dict[str, Any]:
    """Sums over all runs, and median and maximum of makespans and recoveries."""
    kinds, broken = Counter[str](), Counter[str]()
    for run in runs:
        kinds.update(run["kinds"])
        broken.update({promise: who[0] for promise, who in run["broken"].items()})
    undisturbed = {run["mode"]: run["makespan_seconds"] for run in calm}
    ratios = [run["makespan_seconds"] / undisturbed[run["mode"]] for run in runs]
    recoveries = [seconds for run in runs for seconds in run["recoveries"]]
    return {
        "runs": len(runs),
        "faults": sum(kinds.values()),
        "faults_by_kind": dict(kinds.most_common()),
        "requests": sum(run["requests"] for run in runs),
        "replies_lost": sum(run["lost_replies"] for run in runs),
        "infra_failed": sum(run["infra_failed"] for run in runs),
        "lost": broken.pop("lost", 0),
        "doubled": broken.pop("doubled", 0),
        "false_infra_failed": broken.pop("false infra_failed", 0),
        "clean_audits": sum(bool(run["audit"].get("ok")) for run in runs),
        "epochs": sum(run["audit"].get("epochs", 0) for run in runs),
        "reissued": sum(run["audit"].get("reissued", 0) for run in runs),
        "broken": dict(broken),
        "undisturbed_seconds": undisturbed,
        "makespan_over_undisturbed": spread(ratios),
        "recovery_seconds": spread(recoveries),
        "recoveries": len(recoveries),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and greatest."""
    return {"median": round(statistics.median(values), 2), "greatest": round(max(values), 2)} if values else {}


if __name__ == "__main__":
    sys.exit(main())
