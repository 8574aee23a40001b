"""The output of `openseer explain`."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from openseer_core.errors import InputError
from openseer_driver.run_folder import RunFolder
from openseer_local.explained import show_explanation
from tests.driver.explain.planted import STEP, drawn, write_planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a slow worker."""
    return write_planted(tmp_path_factory.mktemp("runs") / "slow", drawn(12), steps=(STEP, 2.5 * STEP))


def shown(folder: RunFolder, *, as_json: bool = False, profile: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    show_explanation(folder, as_json=as_json, profile=profile, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_output_has_advice_then_parts_then_best_times(folder: RunFolder) -> None:
    lines = [line.strip() for line in shown(folder).splitlines() if line.strip()]
    assert lines[0].startswith("worker-1 generates responses at 0.4")
    assert lines[1].startswith("→ check its node and GPU")
    [total] = [line for line in lines if line.startswith("makespan ")]
    assert "2 workers" in total
    assert sum(line.startswith("decoding, ") for line in lines) == 3
    [possible] = [line for line in lines if line.startswith("Possible makespans for these lengths")]
    assert "with the lengths known at each time (policy context-aware)" in possible
    assert lines.index(total) < lines.index(possible)


def test_an_explanation_is_one_json_document(folder: RunFolder) -> None:
    found = json.loads(shown(folder, as_json=True))
    assert [finding["cause"] for finding in found["findings"]] == ["slow_worker"]
    assert sum(part["worker_seconds"] or 0 for part in found["parts"]) == pytest.approx(found["worker_seconds"])
    best = found["best"]
    assert best["bound"] <= best["oracle"] <= best["known"] < found["makespan_seconds"]


def test_an_unknown_best_time_has_its_reason(folder: RunFolder, tmp_path: Path) -> None:
    document = json.loads(folder.job_file.read_text())
    document["spec"]["model"]["engine"] = "vllm"
    del document["spec"]["model"]["scripted"]
    other = write_planted(tmp_path / "vllm", drawn(2))
    other.job_file.write_text(json.dumps(document))
    text = shown(other)
    assert "The best time possible is not known: planted: the run has too few samples" in " ".join(text.split())
    assert json.loads(shown(other, as_json=True))["best"] is None
    with pytest.raises(InputError, match=r"profile.json: cannot be read"):
        shown(other, profile=tmp_path / "profile.json")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    empty = write_planted(tmp_path / "empty", drawn(1))
    empty.results_file.write_text("")
    with pytest.raises(InputError, match="this folder has no results to explain"):
        shown(empty)
    with pytest.raises(InputError, match="not the folder of a run"):
        shown(RunFolder(tmp_path / "nowhere"))
