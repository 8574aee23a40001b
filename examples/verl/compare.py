"""Compares the step times of two trainings with verl: sampled by verl's own engines, and by openseer's fleet.

    python examples/verl/compare.py [runs/verl/stock.jsonl runs/verl/openseer.jsonl]

Reads the output of verl's file logger. Leaves out the first steps, in which graphs are captured and caches are empty.
"""

import argparse
import json
import statistics
from pathlib import Path

FIGURES = {
    "timing_s/step": "step, s",
    "timing_s/gen": "of it rollout, s",
    "timing_s/update_weights": "of it new weights, s",
    "timing_s/update_actor": "of it learning, s",
    "perf/throughput": "tokens per second and GPU",
    "response_length/mean": "tokens of a response, mean",
    "response_length/max": "tokens of a response, longest",
    "critic/rewards/mean": "reward, mean",
}
WARM_UP = 2
"""Number of first steps that are left out."""


def medians(path: Path) -> dict[str, float]:
    """Returns the median of each figure over a training's steps, and their number. Raises SystemExit without steps."""
    try:
        steps = [json.loads(line)["data"] for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise SystemExit(f"{path} is not there: run examples/verl/train.sh {path.stem} first") from None
    steps = [step for step in steps if "timing_s/step" in step][WARM_UP:]
    if not steps:
        raise SystemExit(f"{path} has no step after the first {WARM_UP}")
    found: dict[str, list[float]] = {name: [step[name] for step in steps if name in step] for name in FIGURES}
    return {name: statistics.median(values) for name, values in found.items() if values} | {"steps": float(len(steps))}


def main() -> None:
    """Prints the medians of both trainings, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, nargs="?", default=Path("runs/verl/stock.jsonl"))
    parser.add_argument("openseer", type=Path, nargs="?", default=Path("runs/verl/openseer.jsonl"))
    options = parser.parse_args()
    stock, ours = medians(options.stock), medians(options.openseer)
    print(f"{'median of steps':>32} {'stock':>10} {'openseer':>10} {'ratio':>7}")
    for name, words in FIGURES.items():
        if name in stock and name in ours:
            ratio = f"{stock[name] / ours[name]:.2f}" if ours[name] else ""
            print(f"{words:>32} {stock[name]:>10.2f} {ours[name]:>10.2f} {ratio:>7}")
    print(f"{'steps':>32} {stock['steps']:>10.0f} {ours['steps']:>10.0f}")


if __name__ == "__main__":
    main()
