"""The file of figures: whole lines count, an interrupted run continues, figures of two machines are not mixed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from openseer_core.errors import InputError, OutputError
from openseer_worker.gpu_bench.figures import FILE, alone, check_header, read, write, write_figure
from openseer_worker.gpu_bench.plan import DRAFTS, STOCK, SUFFIX, Part

SAMPLE = Path(__file__).parent / FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(SAMPLE, tmp_path / FILE)
    return tmp_path


def test_a_figure_is_read_as_written(folder: Path, tmp_path: Path) -> None:
    figures = read(folder)
    other = tmp_path / "other"
    other.mkdir()
    for figure in figures.steps.values():
        write_figure(other, figure)
    assert read(other).steps == figures.steps
    assert Part(DRAFTS, 8, 3) in figures.steps


def test_a_folder_without_figures_is_a_new_run(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.header, found.steps, found.tier) == ({}, {}, None)


def test_a_half_written_last_line_is_dropped_and_the_rest_kept(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    (folder / FILE).write_bytes(whole[: last + 40])
    assert read(folder).exactness is None
    assert read(folder).steps == read(SAMPLE.parent).steps


def test_a_line_after_a_torn_one_is_read_by_itself(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:-30])
    write(folder, {"kind": "note", "way": STOCK, "text": "of the next run"})
    assert read(folder).notes[STOCK] == "of the next run"
    assert read(folder).steps == read(SAMPLE.parent).steps


def test_a_figure_measured_again_replaces_the_older_one(folder: Path) -> None:
    old = read(folder).steps[Part(STOCK, 8, 0)]
    write_figure(folder, replace(old, step_ms=[1.0, 2.0]))
    assert read(folder).steps[Part(STOCK, 8, 0)].step_ms == [1.0, 2.0]


def test_a_run_continues_in_a_folder_of_the_same_device_and_model(folder: Path) -> None:
    found = read(folder)
    check_header(found, {**found.header, "date": "2026-12-01", "command": "another"}, folder)


@pytest.mark.parametrize(
    "field", ["device", "processor", "cores", "model", "exact_model", "vllm", "torch", "largest_batch"]
)
def test_figures_of_another_machine_or_model_are_refused(folder: Path, field: str) -> None:
    found = read(folder)
    with pytest.raises(InputError, match=f"figures of another configuration .*{field.replace('_', ' ')}.*--output"):
        check_header(found, {**found.header, field: "other"}, folder)


def test_figures_without_a_small_real_model_are_continued_with_one(folder: Path) -> None:
    found = read(folder)
    found.header["exact_model"] = ""
    check_header(found, {**found.header, "exact_model": "/a/model (0123456789ab)"}, folder)


STEPS = next(line for line in SAMPLE.read_text().splitlines() if '"steps"' in line)


def changed(**values: object) -> str:
    return json.dumps({**json.loads(STEPS), **values})


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        "null",
        '"x"',
        "[" * 100_000,
        '{"kind": ["steps"]}',
        '{"kind": "tier"}',
        '{"kind": "tier", "tier": "magic"}',
        '{"kind": "note"}',
        '{"kind": "note", "way": 3, "text": "a"}',
        '{"kind": "texts"}',
        '{"kind": "exactness", "deviations": 3}',
        '{"kind": "steps"}',
        changed(clock=1),
        json.dumps({name: value for name, value in json.loads(STEPS).items() if name != "tier"}),
        changed(step_ms=[]),
        changed(step_ms=[0.0]),
        changed(batch="many"),
    ],
    ids=lambda line: line[:40],
)
def test_an_unknown_line_is_ignored(folder: Path, line: str) -> None:
    with (folder / FILE).open("a") as file:
        file.write(line + "\n")
    assert read(folder) == read(SAMPLE.parent)


@pytest.mark.parametrize("header", [{}, {"kind": "header", "device": "cpu"}, {"kind": "header", "format": 99}])
def test_figures_of_another_format_are_refused(folder: Path, header: dict[str, object]) -> None:
    found = read(folder)
    rest = [line for line in SAMPLE.read_text().splitlines() if '"header"' not in line]
    (folder / FILE).write_text("\n".join([json.dumps(header), *rest]) + "\n")
    with pytest.raises(InputError, match=r"another format.*--output.*--fresh"):
        check_header(read(folder), found.header, folder)


def test_an_empty_note_removes_the_last_one(folder: Path) -> None:
    assert SUFFIX in read(folder).notes
    write(folder, {"kind": "note", "way": SUFFIX, "text": ""})
    assert SUFFIX not in read(folder).notes


def test_a_full_disk_is_reported_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to("/dev/full")
    with pytest.raises(OutputError, match=f"{tmp_path} cannot be used: No space left"):
        write(tmp_path, {"kind": "note", "way": STOCK, "text": "a"})


def test_a_folder_is_locked_by_one_run(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(InputError, match="in use by another run"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/x cannot be used"), alone(tmp_path / "file/x"):
        pass
