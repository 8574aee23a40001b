"""Compares simulated with measured makespan, tail and idle time of runs, simulated with the runs' own lengths.

    python benchmarks/rollout.py --engine scripted --keep kept        the runs: 16 scripted engines over a real Redis
    PYTHONPATH=benchmarks python benchmarks/simulated/replayed_runs.py kept [--json FILE]      their predictions

Each run is simulated under its own policy, with the step times of its manifest (scripted engines), or of its own
samples (vLLM), so the prediction covers the effects of order and lengths.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.stamp import Stamp

from openseer_driver.run_folder import RunFolder
from openseer_sim.recorded import read_run
from openseer_sim.replay import engine_of_run, replay

SECONDS_TARGET, TAIL_TARGET = 0.10, 0.15
"""Allowed errors of predicted makespan and tail, as a fraction of the measured value."""


def main() -> None:
    """Simulates every complete run below a folder and prints the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, help="folder with subfolders, each with a run named run")
    parser.add_argument("--kv-tokens", type=int, default=0, help="capacity of one vLLM engine's KV cache, in tokens")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    console = Console(width=130)
    runs: list[dict[str, Any]] = []
    for folder in sorted(path for path in options.kept.iterdir() if RunFolder(path / "run").exists()):
        if RunFolder(folder / "run").read_run().state != "complete":
            console.print(f"{folder.name}: not complete, left out", highlight=False)
            continue
        runs.append(predicted(folder, options.kv_tokens))
        console.print(f"{folder.name}: {runs[-1]['seconds_error']:+.1%}", highlight=False)
    if not runs:
        parser.error(f"{options.kept}: no folder here has a finished run")
    console.print(table(runs))
    measurements = {"targets": {"seconds": SECONDS_TARGET, "tail": TAIL_TARGET}, "runs": runs} | stamp.fields()
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def predicted(folder: Path, kv_tokens: int) -> dict[str, Any]:
    """One run and its simulation, with errors relative to the measured values. `kv_tokens`: KV cache of one vLLM
    engine; 0: not given."""
    run = read_run(RunFolder(folder / "run"))
    outcome = replay(run, engine_of_run(run, None, kv_tokens), (run.job.spec.rollout.policy,))
    own, measured = outcome.own, outcome.measured
    assert own.tail_seconds is not None
    assert measured.tail_seconds is not None
    return {
        "run": folder.name,
        "arm": folder.name.split("-", 1)[-1],
        "measured_seconds": measured.seconds,
        "seconds": own.seconds,
        "seconds_error": own.seconds / measured.seconds - 1,
        "measured_tail_seconds": measured.tail_seconds,
        "tail_seconds": own.tail_seconds,
        "tail_error": own.tail_seconds / measured.tail_seconds - 1,
        "tail_error_of_makespan": (own.tail_seconds - measured.tail_seconds) / measured.seconds,
        "measured_idle": measured.idle,
        "idle": own.idle,
        "measured_moves": measured.moves,
        "moves": own.moves,
        "bound_seconds": outcome.rows[-1].seconds,
    }


def table(runs: list[dict[str, Any]]) -> Table:
    """A row for each arm over its seeds: medians, and the largest errors."""
    result = Table(title="simulated from the runs' own lengths, and measured")
    both = ("simulated", "largest error")
    for column in ("arm", "runs", "makespan s", *both, "tail s", *both, "idle", "simulated"):
        result.add_column(column, justify="left" if column == "arm" else "right")
    for arm in sorted({run["arm"] for run in runs}):
        own = [run for run in runs if run["arm"] == arm]

        def middle(key: str, own: list[dict[str, Any]] = own) -> float:
            return statistics.median(run[key] for run in own)

        def worst(key: str, own: list[dict[str, Any]] = own) -> float:
            return max((run[key] for run in own), key=abs)

        result.add_row(
            arm,
            str(len(own)),
            f"{middle('measured_seconds'):.1f}",
            f"{middle('seconds'):.1f}",
            f"{worst('seconds_error'):+.1%}",
            f"{middle('measured_tail_seconds'):.2f}",
            f"{middle('tail_seconds'):.2f}",
            f"{worst('tail_error'):+.1%}",
            f"{middle('measured_idle'):.1%}",
            f"{middle('idle'):.1%}",
        )
    return result


if __name__ == "__main__":
    main()
