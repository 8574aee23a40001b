"""Measures the simulator's time for a large fleet: 10,000 GPUs and 100,000 requests, on one core.

    PYTHONPATH=benchmarks python benchmarks/simulated/large_fleet.py

The paper's Moonlight workload (one engine per GPU, contexts that move, grouped drafts or none) with its lengths, on
more GPUs. A complete rollout under the product's policy is compared with one that binds each group to one engine.
"""

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.stamp import Stamp

from openseer_sim.outcome import Outcome
from openseer_sim.paper.cases import CASES, GROUPED, PaperCase
from openseer_sim.systems import OURS, System, bound_by, divided_by

TARGET_SECONDS = 300.0
QUICK_PART = 50
"""Divisor of the numbers of GPUs and requests with `--quick`."""


def main() -> None:
    """Simulates the fleet and prints a line for each system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), default="moonlight")
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--drafts", action="store_true", help="with grouped drafts")
    parser.add_argument("--quick", action="store_true", help=f"a fleet that is {QUICK_PART} times smaller")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    part = QUICK_PART if options.quick else 1
    case = sized(CASES[options.case], options.gpus // part, options.requests // part)
    systems = {"round-robin": bound_by("round-robin"), OURS: divided_by(OURS, case.chunk)}
    rows = [row(name, system, case, drafts=options.drafts) for name, system in systems.items()]
    if options.json:
        fields = {"case": case.name, "gpus": case.gpus, "requests": case.requests, "drafts": options.drafts}
        measurements = {"target_seconds": TARGET_SECONDS, **fields, "rows": rows} | stamp.fields()
        options.json.write_text(json.dumps(measurements, indent=1))


def sized(case: PaperCase, gpus: int, requests: int) -> PaperCase:
    """The case scaled to a number of GPUs and requests, in whole instances and groups."""
    gpus -= gpus % case.gpus_per_instance
    return replace(case, gpus=gpus, requests=requests - requests % case.group)


def row(name: str, system: System, case: PaperCase, *, drafts: bool) -> dict[str, Any]:
    """One simulated rollout: its outcome, and the seconds that the simulation took."""
    work = case.work(seed=1)
    began, spent = time.perf_counter(), time.process_time()
    outcome: Outcome = system(case.fleet(GROUPED if drafts else None), work, case.cap)
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{case.name}, {case.gpus:,} GPUs, {case.requests:,} requests, {name}: simulated {outcome.seconds:,.0f} s, "
        f"tail {outcome.tail_seconds:,.0f} s, idle {outcome.idle:.1%}, moves {outcome.moves:,}; took {wall:.1f} s, CPU "
        f"{cpu:.1f} s, {megabytes:,.0f} MiB",
        flush=True,
    )
    return {
        "system": name,
        "simulated_seconds": outcome.seconds,
        "tail_seconds": outcome.tail_seconds,
        "idle": outcome.idle,
        "moves": outcome.moves,
        "ends": len(outcome.ends),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "peak_megabytes": megabytes,
    }


if __name__ == "__main__":
    main()
