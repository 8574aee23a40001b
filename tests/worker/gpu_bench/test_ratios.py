"""Rows for the table of devices: from reliable figures only, else a reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openseer_worker.gpu_bench.figures import BenchFigures, Figure, read
from openseer_worker.gpu_bench.plan import AGAIN, DRAFTS, EXACTNESS, Part
from openseer_worker.gpu_bench.ratios import DraftRatios, draft_ratios, rows_text
from openseer_worker.gpu_bench.table import rows

BATCHES = (8, 128)


@pytest.fixture
def found() -> BenchFigures:
    return read(Path(__file__).parent)


def ratios_of(found: BenchFigures) -> DraftRatios:
    return draft_ratios(found, rows(found, BATCHES))


def change(found: BenchFigures, part: Part, **values: Any) -> None:
    found.steps[part] = replace(found.steps[part], **values)


def test_rows_have_the_fields_of_the_table_of_devices(found: BenchFigures) -> None:
    ratios = ratios_of(found)
    assert ratios.missing == []
    assert len(ratios.rows) == len(BATCHES)
    low = rows(found, BATCHES)[0].ways[DRAFTS].low
    assert ratios.rows[0]["ratio"] == round(low, 2)
    assert ratios.rows[0] | {"ratio": 0} == {
        "device": "NVIDIA H100 80GB HBM3", "runner": "V1", "model": "8b", "batch": 8, "ratio": 0, "date": "2026-11-27",
        "command": "openseer bench-gpu --minutes 8",
    }  # fmt: skip
    lines = rows_text(ratios)
    assert lines[0] == "rows for draft_ratios.json:"
    assert json.loads(f"[{lines[1]}]") == ratios.rows


def test_a_batch_measured_on_a_busy_machine_has_no_row(found: BenchFigures) -> None:
    part = Part(AGAIN, 8, 0)
    change(found, part, step_ms=[2 * time for time in found.steps[part].step_ms])
    ratios = ratios_of(found)
    assert [row["batch"] for row in ratios.rows] == [128]
    assert ratios.missing == ["batch 8: the machine was busy (A/A)"]


def test_a_batch_without_its_second_stock_engine_has_no_row(found: BenchFigures) -> None:
    del found.steps[Part(AGAIN, 8, 0)]
    ratios = ratios_of(found)
    assert [row["batch"] for row in ratios.rows] == [128]
    assert rows_text(ratios)[0].startswith("no row for draft_ratios.json of batch 8: A/A was not measured")


@pytest.mark.parametrize("tier", ["eager", "not compiled"])
def test_engines_with_other_than_vllms_default_settings_give_no_row(found: BenchFigures, tier: str) -> None:
    for part in [*found.steps]:
        change(found, part, tier=tier)
    ratios = ratios_of(found)
    assert ratios.rows == []
    assert len(rows_text(ratios)) == 1
    assert f"engines ran {tier}, so that stock is not vLLM's default" in rows_text(ratios)[0]


def test_drafts_that_change_the_distribution_give_no_row(found: BenchFigures) -> None:
    assert found.exactness is not None
    found.exactness["deviations"] = 99.0
    assert rows_text(ratios_of(found)) == ["no rows for draft_ratios.json: drafts do not give the same distribution"]


def test_a_run_without_exactness_gives_rows_only_where_it_was_skipped(found: BenchFigures) -> None:
    found.exactness = None
    assert rows_text(ratios_of(found)) == ["no rows for draft_ratios.json: exactness was not measured"]
    found.notes[EXACTNESS] = "RuntimeError: no"
    assert ratios_of(found).rows == []
    found.notes[EXACTNESS] = "skipped: there is no small real model here; give one as --exact-model"
    assert len(ratios_of(found).rows) == 2


@pytest.mark.parametrize(("device", "reason"), [("cpu", "benchmarks/speculation.py"), ("unknown GPU", "nvidia-smi")])
def test_a_cpu_and_a_gpu_without_a_name_give_no_row(found: BenchFigures, device: str, reason: str) -> None:
    found.header["device"] = device
    ratios = ratios_of(found)
    assert ratios.rows == []
    assert reason in rows_text(ratios)[0]


def test_no_ratio_is_zero(found: BenchFigures) -> None:
    def slowed(figure: Figure) -> Figure:
        return replace(figure, step_ms=[time * 1000 for time in figure.step_ms]) if figure.way == DRAFTS else figure

    found.steps = {part: slowed(figure) for part, figure in found.steps.items()}
    assert [row["ratio"] for row in ratios_of(found).rows] == [0.01, 0.01]
