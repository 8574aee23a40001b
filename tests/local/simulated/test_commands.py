"""The output of `openseer simulate --replay` and `openseer plan`."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from openseer_core.errors import InputError, OutputError
from openseer_core.manifest.parse import parse_job
from openseer_driver.run_folder import RunFolder
from openseer_local.simulated.commands import simulate
from openseer_local.simulated.plan import PlanCommand, gpu_sizes, seconds_of, show_plan
from openseer_local.simulated.replayed import page, show_replay
from openseer_sim.replay import PolicyRow, Replay
from tests.sim.recorded_runs import manifest, write_recorded

JOB = parse_job(manifest(), "the test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_recorded(tmp_path_factory.mktemp("runs") / "recorded")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def command(folder: RunFolder, gpus: str = "2,4", plot: Path | None = None, *, as_json: bool = False) -> PlanCommand:
    return PlanCommand(gpus, [folder.path], groups=8, draws=1, plot=plot, as_json=as_json, price=2.5, deadline="1h")


def test_a_replay_shows_the_run_and_every_policy(folder: RunFolder, console: Console) -> None:
    show_replay(folder.path, console=console)
    text = printed(console)
    assert "The simulation of the run itself is off by" in " ".join(text.split())
    for name in ("context-aware, measured", "round-robin", "longest-first-oracle", "bound", "not known here"):
        assert name in text


def test_policies_within_the_error_of_a_simulation_are_equal() -> None:
    def sentence(other: float, *, partial: bool = False) -> str:
        rows = (PolicyRow("context-aware", 102.0, 1.0, 0.0), PolicyRow("seer", other, 1.0, 0.0))
        bound = PolicyRow("bound", 90.0, None, None)
        shown = Replay("run", 2, 8, 80, "steps", rows[0], (*rows, bound), (), partial)
        console = Console(file=io.StringIO(), width=200)
        console.print(page(shown))
        return printed(console).splitlines()[0]

    assert sentence(101.0).startswith(
        "No policy does better with these lengths than context-aware, the run's own, by 2%"
    )
    assert sentence(90.0, partial=True).startswith("Responses of this run were cut or did not finish")
    assert sentence(90.0).startswith("seer would have been 1.13 × as fast as context-aware")


def test_options_of_the_other_simulation_are_refused(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="only with --replay"):
        simulate("paper", kv_tokens=5)
    with pytest.raises(InputError, match="only with `paper`"):
        simulate(replay=folder.path, seeds=3)


def test_a_replay_is_one_json_document(folder: RunFolder, console: Console) -> None:
    show_replay(folder.path, console=console, as_json=True)
    shown = json.loads(printed(console))
    assert shown["measured"]["policy"] == "context-aware"
    assert shown["rows"][-1]["policy"] == "bound"


def test_a_plan_begins_with_its_advice_and_ends_with_assumptions(folder: RunFolder, console: Console) -> None:
    show_plan(JOB, command(folder), console)
    lines = printed(console).splitlines()
    assert lines[0].startswith("Take 2 GPUs (")
    assert "EUR" in lines[0]
    assert any(line.startswith("→ ") for line in lines)
    assert any(line.startswith("assumed: lengths:") for line in lines)


def test_a_plan_is_json_and_a_plot(folder: RunFolder, console: Console, tmp_path: Path) -> None:
    show_plan(JOB, command(folder, plot=tmp_path / "plan.svg", as_json=True), console)
    plan = json.loads(printed(console))
    assert plan["chosen"]["gpus"] == 2
    assert [fleet["gpus"] for fleet in plan["fleets"]] == [2, 4]
    drawing = ElementTree.fromstring((tmp_path / "plan.svg").read_text())
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert "--ink" in drawing.attrib["style"]


def test_an_unwritable_plot_is_reported(folder: RunFolder, console: Console, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        show_plan(JOB, command(folder, gpus="2", plot=tmp_path / "none" / "plan.svg"), console)


def test_an_invalid_plot_is_refused_before_the_simulation(folder: RunFolder, console: Console, tmp_path: Path) -> None:
    wide = parse_job(manifest(workers={"parallelism": {"tensor": 2}}), "the test")
    with pytest.raises(InputError, match="multiples of 2"):
        show_plan(wide, command(folder, gpus="3", plot=tmp_path / "plan.svg"), console)
    assert not (tmp_path / "plan.svg").exists()
    with pytest.raises(OutputError, match="cannot be written"):
        show_plan(wide, command(folder, gpus="3", plot=tmp_path), console)


def test_sizes_are_a_list_or_a_doubling_range() -> None:
    assert gpu_sizes("8..256") == (8, 16, 32, 64, 128, 256)
    assert gpu_sizes("3..20") == (3, 6, 12)
    assert gpu_sizes("16,8,24") == (8, 16, 24)


@pytest.mark.parametrize("text", ["", "0", "0..8", "9..8", "a", "8,", "8...9", "-1"])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--gpus"):
        gpu_sizes(text)


def test_a_deadline_has_a_unit() -> None:
    assert [seconds_of(text) for text in ("2h", "90min", "1.5h", "45m", "30s", "600")] == [
        7200,
        5400,
        5400,
        2700,
        30,
        600,
    ]
    for text in ("", "0h", "soon", "-1h", "2d"):
        with pytest.raises(InputError, match="--deadline"):
            seconds_of(text)
