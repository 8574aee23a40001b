"""The file of figures: whole lines count, a cut run goes on, and figures of two machines are not mixed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from openseer_core.errors import InputError
from openseer_worker.gpu_bench.figures import FILE, check_header, read, write, write_figure
from openseer_worker.gpu_bench.plan import DRAFTS, STOCK, Part

SAMPLE = Path(__file__).parent / FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(SAMPLE, tmp_path / FILE)
    return tmp_path


def test_a_figure_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    figures = read(folder)
    other = tmp_path / "other"
    other.mkdir()
    for figure in figures.steps.values():
        write_figure(other, figure)
    assert read(other).steps == figures.steps
    assert Part(DRAFTS, 8, 3) in figures.steps


def test_a_folder_without_figures_is_a_run_that_has_not_begun(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.header, found.steps, found.tier) == ({}, {}, None)


def test_a_half_written_last_line_is_dropped_and_the_rest_kept(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    (folder / FILE).write_bytes(whole[: last + 40])
    assert read(folder).exactness is None
    assert read(folder).steps == read(SAMPLE.parent).steps


def test_a_line_after_a_half_written_one_stands_alone(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:-30])
    write(folder, {"kind": "note", "way": STOCK, "text": "of the next run"})
    assert read(folder).notes[STOCK] == "of the next run"
    assert read(folder).steps == read(SAMPLE.parent).steps


def test_a_figure_that_was_measured_again_replaces_the_older(folder: Path) -> None:
    old = read(folder).steps[Part(STOCK, 8, 0)]
    write_figure(folder, replace(old, step_ms=[1.0, 2.0]))
    assert read(folder).steps[Part(STOCK, 8, 0)].step_ms == [1.0, 2.0]


def test_a_run_goes_on_in_a_folder_of_the_same_device_and_model(folder: Path) -> None:
    found = read(folder)
    check_header(found, {**found.header, "date": "2026-12-01", "command": "another"}, folder)


@pytest.mark.parametrize("field", ["device", "model", "vllm", "torch", "largest_batch"])
def test_figures_of_another_machine_or_model_are_refused(folder: Path, field: str) -> None:
    found = read(folder)
    with pytest.raises(InputError, match=f"figures of something else .*{field}.*--output"):
        check_header(found, {**found.header, field: "other"}, folder)
