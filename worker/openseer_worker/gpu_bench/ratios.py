"""Makes rows for the table of draft ratios by device (openseer_core/worker/draft_ratios.json), or reports why not.

A row may turn drafts on, so it requires reliable figures: compared with vLLM's default, on a machine without other
work, with drafts that pass the exactness test.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openseer_core.worker.speculation_enabled import CPU
from openseer_worker.gpu_bench.device import UNKNOWN
from openseer_worker.gpu_bench.figures import BenchFigures
from openseer_worker.gpu_bench.plan import AGAIN, DRAFTS, EXACTNESS, STOCK, Part
from openseer_worker.gpu_bench.table import FAR, BatchRow, busy
from openseer_worker.gpu_bench.ways import DEFAULT_TIER

_LEAST = 0.01
"""Least ratio in the table, which allows no 0."""
SKIPPED = "skipped: "
"""Beginning of a note about a part that was intentionally not measured."""


@dataclass(frozen=True)
class DraftRatios:
    """`rows`: an object of the table for each batch; `missing`: the reasons for missing rows."""

    rows: list[dict[str, Any]]
    missing: list[str]


def draft_ratios(found: BenchFigures, made: Sequence[BatchRow]) -> DraftRatios:
    """Makes the rows. A ratio is the lower end of its interval, so that noise turns no drafts on."""
    if reason := _of_none(found):
        return DraftRatios([], [reason])
    result = DraftRatios([], [])
    for row in made:
        if reason := _of_batch(found, row):
            result.missing.append(f"batch {row.batch}: {reason}")
            continue
        ratio = row.ways[DRAFTS]
        figure = found.steps[Part(DRAFTS, row.batch, ratio.drafts)]
        result.rows.append(
            {
                "device": found.header["device"],
                "runner": figure.runner,
                "model": found.header["model"],
                "batch": row.batch,
                "ratio": max(_LEAST, round(ratio.low, 2)),
                "date": figure.date,
                "command": found.header["command"],
            }
        )
    return result


def rows_text(ratios: DraftRatios) -> list[str]:
    """Returns the lines of output about the rows."""
    missing = "; ".join(ratios.missing)
    if not ratios.rows:
        return [f"no rows for draft_ratios.json: {missing or 'drafts were not measured'}"]
    lines = [f"no row for draft_ratios.json of {missing}"] if missing else []
    return [*lines, "rows for draft_ratios.json:", ",\n".join(f"  {json.dumps(row)}" for row in ratios.rows)]


def _of_none(found: BenchFigures) -> str:
    """Returns the reason why no batch gets a row, or ""."""
    if found.header["device"] == CPU:
        return "rows of CPUs come from benchmarks/speculation.py, which drafts real texts"
    if found.header["device"] == UNKNOWN:
        return "nvidia-smi does not report the GPU's name"
    seen = found.exactness
    if seen is None:
        skipped = found.notes.get(EXACTNESS, "").startswith(SKIPPED)
        return "" if skipped else "exactness was not measured"
    return "drafts do not give the same distribution" if seen["deviations"] >= FAR else ""


def _of_batch(found: BenchFigures, row: BatchRow) -> str:
    """Returns the reason why this batch gets no row, or ""."""
    ratio = row.ways.get(DRAFTS)
    if ratio is None:
        return "drafts were not measured"
    if row.same is None:
        return "A/A was not measured (two equal engines without drafts)"
    if busy([row]):
        return "the machine was busy (A/A)"
    parts = (Part(STOCK, row.batch, 0), Part(AGAIN, row.batch, 0), Part(DRAFTS, row.batch, ratio.drafts))
    other = {found.steps[part].tier for part in parts} - {DEFAULT_TIER}
    return f"engines ran {', '.join(sorted(other))}, so that stock is not vLLM's default" if other else ""
