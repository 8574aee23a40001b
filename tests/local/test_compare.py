"""Comparing runs: each against the first, with notes about differences."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from openseer_core.errors import InputError
from openseer_driver.run_folder import RunFolder
from openseer_local.compare import Comparison, compare
from tests.driver.sample_runs import SMALL, write_run

FEW = replace(SMALL, groups=6, mean=60.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    base = tmp_path_factory.mktemp("runs")
    write_run(base / "seer", FEW)
    write_run(base / "first-come", replace(FEW, policy="fifo"))
    return [RunFolder(base / "seer"), RunFolder(base / "first-come")]


@pytest.fixture
def comparison(folders: list[RunFolder]) -> Comparison:
    return compare(folders)


def shown(comparison: Comparison) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        console.print(comparison.table())
    return capture.get()


def test_every_run_is_compared_with_the_first(comparison: Comparison) -> None:
    seer, first_come = comparison.runs

    assert [run.policy for run in comparison.runs] == ["context-aware", "fifo"]
    assert set(seer.relative.values()) == {1.0}
    ratio = first_come.metrics["makespan_seconds"] / seer.metrics["makespan_seconds"]
    assert first_come.relative["makespan_seconds"] == pytest.approx(ratio)
    assert first_come.metrics["acceptance_length"] == 1.0
    assert comparison.notes == ()


def test_the_table_has_a_row_per_run_and_shares_from_the_second_on(comparison: Comparison) -> None:
    rows = [line for line in shown(comparison).splitlines() if "seer" in line or "first-come" in line]

    assert len(rows) == 2
    assert "×" not in rows[0]
    assert rows[1].count("×") == 3


def test_output_to_a_pipe_is_not_truncated(folders: list[RunFolder]) -> None:
    program = "from openseer_local.main import main; main()"
    command = [sys.executable, "-c", program, "compare", *(str(folder.path) for folder in folders)]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120)
    assert "…" not in done.stdout
    assert all(title in done.stdout for title in ("makespan s", "preempted", "idle", "context-aware", "first-come"))


def test_the_json_output_has_the_same_figures(comparison: Comparison) -> None:
    data = json.loads(json.dumps(comparison.as_dict()))

    assert [run["name"] for run in data["runs"]] == ["seer", "first-come"]
    assert data["runs"][1]["relative"].keys() == {"makespan_seconds", "tail_seconds", "tokens_per_second"}


def test_differences_between_runs_are_noted(folders: list[RunFolder], tmp_path: Path) -> None:
    write_run(tmp_path / "half", replace(FEW, groups=3, workers=1))
    half = RunFolder(tmp_path / "half")
    half.write_run(msgspec.structs.replace(half.read_run(), state="stopped"))

    notes = compare([folders[0], half]).notes

    assert notes == (
        "half is stopped: its metrics cover the finished requests.",
        "half has 24 results, seer 48.",
        "half ran on 1 worker, seer on 2 workers.",
    )


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a run"):
        compare([RunFolder(tmp_path)])
