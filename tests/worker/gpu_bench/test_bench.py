"""The whole bench on a CPU: from start to table, and once more."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from openseer_core.errors import InputError
from openseer_worker.gpu_bench.figures import FILE, read
from openseer_worker.gpu_bench.main import run
from openseer_worker.gpu_bench.options import BenchOptions
from openseer_worker.gpu_bench.plan import AGAIN, DRAFTS, EXACTNESS, STOCK, SUFFIX, parts_of
from openseer_worker.gpu_bench.table import FAR
from openseer_worker.vllm.environment import is_cpu_build

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    # Five engines are slow on a busy machine.
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


class Done(NamedTuple):
    """A run of the bench: exit code, final output, and progress lines."""

    code: int
    shown: list[str]
    progress: list[str]


def bench(folder: Path, shape: str = "", *, as_json: bool = False) -> Done:
    shown: list[str] = []
    progress: list[str] = []
    ways = (STOCK, DRAFTS, SUFFIX)
    options = BenchOptions(minutes=9, batches=(2,), ways=ways, shape=shape, output=folder, as_json=as_json)
    return Done(run(options, shown.append, progress.append), shown, progress)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module", autouse=True)
def done(folder: Path) -> Done:
    return bench(folder)


def test_a_whole_run_goes_from_start_to_table(folder: Path, done: Done) -> None:
    assert done.code == 0
    assert {part for way in (STOCK, DRAFTS, AGAIN) for part in parts_of(way, (2,))} <= set(read(folder).steps)
    assert "cpu, model tiny" in done.shown[0]


def test_each_measurement_is_shown_with_the_remaining_time(folder: Path, done: Done) -> None:
    lines = [line for line in done.progress if "ms a step" in line]
    assert len(lines) == len(read(folder).steps)
    assert all(line.endswith("s left") for line in lines)


def test_every_request_gets_drafts_of_the_stated_length(folder: Path) -> None:
    figures = [figure for figure in read(folder).steps.values() if figure.way == DRAFTS]
    assert [figure.drafted for figure in figures] == [figure.drafts for figure in figures]


def test_drafts_change_no_text_and_no_distribution(folder: Path) -> None:
    seen = read(folder).exactness
    assert seen is not None
    assert EXACTNESS not in read(folder).notes
    assert seen["greedy_same"] == seen["greedy_of"]
    assert seen["greedy_tokens_per_step"] > 2
    assert seen["deviations"] < FAR


def test_a_repeated_command_measures_nothing_again(folder: Path) -> None:
    before = (folder / FILE).read_bytes()
    again = bench(folder, as_json=True)
    assert (folder / FILE).read_bytes() == before
    assert again.progress == ["all of it is measured already"]
    result = json.loads(again.shown[0])
    assert [row["batch"] for row in result["batches"]] == [2]
    assert result["draft_ratios"] == []
    assert "benchmarks/speculation.py" in result["no_draft_ratios"][0]


def test_another_shape_is_refused_in_the_same_folder(folder: Path) -> None:
    with pytest.raises(InputError, match="figures of another configuration"):
        bench(folder, "0.6b")
