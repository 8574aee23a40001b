"""Measured gains of drafts: the table draft_ratios.json, (device, model runner, concurrent requests) → ratio.

Rows are measured with `openseer bench-gpu`, on CPUs with benchmarks/speculation.py; docs/gpu.md shows how to add one.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import Field, TypeAdapter

from openseer_core.json_model import JsonModel

NO_LOSS = 0.98
"""Drafts are enabled by default only if the ratio is at least this at every batch size."""
WORTH_IT = 1.05
"""Drafts are enabled by default only if the ratio is at least this at the best batch size."""


class DraftRatio(JsonModel):
    """One measurement. `batch`: concurrent requests; `ratio`: tokens per second with drafts, divided by tokens per
    second of vLLM's default."""

    device: str = Field(min_length=1, description='As NVIDIA names the GPU, "NVIDIA H100 80GB HBM3", or "cpu".')
    runner: Literal["V1", "V2"]
    model: str = Field(min_length=1)
    batch: int = Field(ge=1)
    ratio: float = Field(gt=0)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    command: str = Field(min_length=1)


@cache
def measured() -> tuple[DraftRatio, ...]:
    """The rows of the table."""
    text = files("openseer_core.worker").joinpath("draft_ratios.json").read_text("utf-8")
    return tuple(TypeAdapter(list[DraftRatio]).validate_json(text))


def refusal(device: str, most: int | None, table: Sequence[DraftRatio]) -> str:
    """The reason why drafts are not enabled by default on a device; "" if they are.

    `most`: the manifest's limit of concurrent requests in an engine, None if it states none; rows with larger batches
    are ignored.
    """
    rows = [row for row in table if row.device == device and (most is None or row.batch <= most)]
    if not rows:
        return f"no measurement shows a gain from drafts on {device}"
    worst, best = min(rows, key=lambda row: row.ratio), max(rows, key=lambda row: row.ratio)
    if worst.ratio < NO_LOSS:
        return (
            f"drafts were measured to give {worst.ratio:g} times the tokens per second on {device} at {worst.batch} "
            f"requests at once ({worst.date})"
        )
    if best.ratio < WORTH_IT:
        return (
            f"drafts were measured to give at most {best.ratio:g} times the tokens per second on {device} ({best.date})"
        )
    return ""
