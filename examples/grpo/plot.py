"""Draws plot.png from a training's metrics.jsonl: the reward on held-out prompts, and the time of each phase.

`python examples/grpo/plot.py FOLDER` draws it for a training that runs or has ended.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

PHASES = {"publish": "#4269d0", "rollout": "#ff725c", "reward": "#efb118", "train": "#6cc5b0", "eval": "#c8c8c8"}


def draw(folder: Path) -> Path:
    """Draws the folder's metrics.jsonl and returns the picture's path."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    _draw_rewards(top, rows)
    _draw_phases(bottom, rows)
    path = folder / "plot.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _draw_rewards(axes: Any, rows: list[dict[str, Any]]) -> None:
    trained = [row for row in rows if "reward" in row]
    axes.plot([row["iteration"] for row in trained], [row["reward"] for row in trained], color="#bbbbbb")
    looks = [row for row in rows if "held_out" in row]
    shares = [row["held_out"] for row in looks]
    below = [row["held_out"] - row["held_out_interval"][0] for row in looks]
    above = [row["held_out_interval"][1] - row["held_out"] for row in looks]
    axes.errorbar(
        [row["iteration"] for row in looks], shares, yerr=[below, above], color="#4269d0", marker="o", capsize=3
    )
    axes.set_ylabel("share of right answers")
    axes.set_title("blue: held-out prompts, 95 % interval; grey: groups sampled for training", fontsize=10)
    axes.grid(alpha=0.3)


def _draw_phases(axes: Any, rows: list[dict[str, Any]]) -> None:
    floor = [0.0] * len(rows)
    for name, color in PHASES.items():
        seconds = [row["seconds"].get(name, 0.0) for row in rows]
        axes.bar([row["iteration"] for row in rows], seconds, 0.9, floor, color=color, label=name)
        floor = [low + more for low, more in zip(floor, seconds, strict=True)]
    axes.set_ylim(0, 1.2 * max(floor))  # room for the legend
    axes.set_ylabel("seconds")
    axes.set_xlabel("iteration")
    axes.legend(ncols=len(PHASES), fontsize=9, loc="upper right")
    axes.grid(axis="y", alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/grpo"))
    print(draw(parser.parse_args().folder))


if __name__ == "__main__":
    main()
