"""Measures the cost of a slow instance to a rollout, with and without the rule that the tail leaves slow workers.

    PYTHONPATH=benchmarks python benchmarks/simulated/slow_instances.py

The fleet is a quarter of one of the paper's, with moved contexts and without drafts. The steps of some instances take
longer by a factor. Makespans are divided by the makespan of the same seed without a slow instance.
"""

import argparse
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support.stamp import Stamp

from openseer_core.manifest.fleet import RolloutSpec
from openseer_core.queue import messages
from openseer_sim.divided import DividedRollout
from openseer_sim.engine import ModelledEngine, StepTime
from openseer_sim.paper.cases import CASES, PaperCase

PART = 0.25
NEVER = 1e9
"""Value of FASTER that turns the rule off: no worker is faster by this factor."""
SLOW = ((1.5, 1), (2.0, 1), (4.0, 1), (2.0, None))
"""Factor of the step time, and number of slow instances (None: half of them)."""


def main() -> None:
    """Simulates all fleets and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["moonlight", "qwen2-vl-72b"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed of the first case, one slow instance")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp, rows = Stamp(), list[dict[str, Any]]()
    cases = options.cases[:1] if options.quick else options.cases
    for case in (CASES[name].scaled(PART) for name in cases):
        for seed in range(1, (1 if options.quick else options.seeds) + 1):
            for rule, faster in (("on", messages.FASTER), ("off", NEVER)):
                with patch.object(messages, "FASTER", faster):
                    rows += measured(case, seed, rule, SLOW[:1] if options.quick else SLOW)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows} | stamp.fields(), indent=1))


def measured(case: PaperCase, seed: int, rule: str, slow: tuple[tuple[float, int | None], ...]) -> list[dict[str, Any]]:
    """One row for each entry of `slow`."""
    even, rows = makespan(case, seed, 1.0, 0), list[dict[str, Any]]()
    for factor, some in slow:
        count = some or case.instances // 2
        ratio = makespan(case, seed, factor, count) / even
        least = case.instances / (case.instances - count + count / factor)
        rows.append(
            {"case": case.name, "seed": seed, "rule": rule, "factor": factor, "slow": count, "of": case.instances}
            | {"even_seconds": even, "ratio": ratio, "speed_alone": least}
        )
        fleet = f"{count} of {case.instances} {factor:g} × slower"
        found = f"{ratio:.2f} × as long ({least:.2f} by speed alone)"
        print(f"{case.name}, seed {seed}, rule {rule}, {fleet}: {found}", flush=True)
    return rows


def makespan(case: PaperCase, seed: int, factor: float, count: int) -> float:
    """Seconds of a rollout whose first `count` instances are slower by a factor."""
    spec = RolloutSpec.model_validate({"policy": "context-aware", "quantumTokens": case.chunk})
    fleet = case.fleet()
    rollout = DividedRollout(fleet, case.work(seed), case.cap, spec)
    for worker in rollout.workers[:count]:
        worker.engine = ModelledEngine(slower(fleet.step, factor))
    return max(rollout.run().ends)


def slower(step: StepTime, factor: float) -> StepTime:
    """The step time, with all its terms multiplied by a factor."""
    points = tuple((tokens, factor * seconds) for tokens, seconds in step.points)
    return StepTime(points, factor * step.per_context, factor * step.per_prefill, factor * step.per_draft)


if __name__ == "__main__":
    main()
