"""Draws mismatch.svg from a training's mismatch.json: the engine's log-probabilities against the trainer's, by step.

`python examples/routed-experts/chart.py FOLDER` draws it again.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

WAYS = {"free": ("the trainer's own experts", "#d4524a"), "replayed": ("the engine's experts, replayed", "#4a86c8")}
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "routed-experts", "font.size": 9}


def draw(folder: Path) -> Path:
    """Draws the folder's mismatch.json and returns the picture's path."""
    found: dict[str, Any] = json.loads((folder / "mismatch.json").read_text())
    path = folder / "mismatch.svg"
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        for axes, (name, title) in zip(panels, {"mean": "mean", "max": "largest"}.items(), strict=True):
            for way, (label, colour) in WAYS.items():
                steps, values = zip(*((row["step"], row[way][name]) for row in found["steps"]), strict=True)
                axes.plot(steps, values, color=colour, marker="o", markersize=4, label=label)
            axes.set_ylim(bottom=0)
            axes.set_title(f"{title} |Δ log-probability| of a step's tokens", fontsize=9)
            axes.set_xlabel(f"step (engine {found['engine_dtype']}, trainer float32)")
            axes.grid(alpha=0.3)
        panels[0].legend(fontsize=8)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))
