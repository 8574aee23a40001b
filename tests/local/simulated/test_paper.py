"""`openseer simulate paper`: tables, JSON, charts and refused options. No rollout is simulated here."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from openseer_core.errors import InputError, OutputError
from openseer_local.simulated import paper
from openseer_local.simulated.paper import PaperOptions, show_paper
from openseer_sim.paper.calibration import VerlColumns
from openseer_sim.paper.cases import PaperCase
from openseer_sim.paper.sensitivity import VariationRow
from openseer_sim.paper.study import PaperRow

ROWS = (
    PaperRow("veRL", 1.0, 1.0, 1.0, 1.0, 3_900.0, 1_800.0, 0.0, 1_817.0, 0.37, 0.0, 2_000.0),
    PaperRow("StreamRL, true lengths", 1.5, 1.4, 1.6, 1.21, 2_600.0, 300.0, 0.83, None, 0.02, 0.0, 900.0),
    PaperRow("APRIL, 2 x issued", 1.6, 1.6, 1.6, None, 2_400.0, None, None, None, 0.02, 0.0, 900.0),
)
CHANGES = (
    VariationRow("chunk, tokens", "256", {"openseer": 1.5, "oracle": 1.7}, {"openseer": 0.7, "oracle": 0.98}),
    VariationRow("error of the oracle", "factor 1.28", {"oracle": 1.6}, {"oracle": 0.9}),
)


@pytest.fixture(autouse=True)
def no_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    def study(_case: PaperCase, _seeds: range, _note: Callable[[str], None], *, part: float) -> Iterator[PaperRow]:
        assert part in (0.25, 1.0)
        return iter(ROWS)

    def dependence(
        _case: PaperCase, _part: float, _seeds: range, _note: Callable[[str], None]
    ) -> Iterator[VariationRow]:
        return iter(CHANGES)

    def columns(_case: PaperCase, _seeds: tuple[int, ...]) -> VerlColumns:
        return VerlColumns(3_950.0, 0.45, 0.37, 2_000.0)

    monkeypatch.setattr(paper, "study", study)
    monkeypatch.setattr(paper, "sensitivity", dependence)
    monkeypatch.setattr(paper, "verl_columns", columns)


def shown(options: PaperOptions) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        show_paper(console, options)
    return capture.get()


def test_the_tables_compare_each_ratio_with_the_papers() -> None:
    text = shown(PaperOptions("moonlight", quick=True))
    [streamrl] = [line for line in text.splitlines() if line.startswith("StreamRL")]
    assert all(cell in streamrl for cell in ("1.21", "1.50", "1.40-1.60", "+24%", "83%"))
    assert "efficiency" in text
    assert "correlation" in text


def test_asynchronous_systems_have_no_tail() -> None:
    [april] = [line for line in shown(PaperOptions("moonlight")).splitlines() if line.startswith("APRIL")]
    assert "2,400" not in april
    assert "0%" not in april.replace("2%", "")


def test_json_holds_every_workload_its_fit_and_all_systems() -> None:
    found = json.loads(shown(PaperOptions(seeds=2, as_json=True)))
    assert set(found) == {"moonlight", "qwen2-vl-72b", "kimi-k2"}
    assert found["moonlight"]["seeds"] == [1, 2]
    assert found["moonlight"]["instances"] == 32
    assert [row["name"] for row in found["kimi-k2"]["systems"]] == [row.name for row in ROWS]
    assert found["kimi-k2"]["fit"]["correlation"] == 0.8


def test_a_quick_study_states_its_quarter_sized_fleets() -> None:
    found = json.loads(shown(PaperOptions("moonlight", quick=True, as_json=True)))
    assert found["moonlight"]["part"] == 0.25


def test_an_unsimulated_system_has_a_dash() -> None:
    lines = shown(PaperOptions("moonlight", dependence=True)).splitlines()
    [error] = [line for line in lines if line.startswith("error of the oracle")]
    assert "–" in error
    assert "1.60" in error


def test_charts_are_svg_files_with_their_own_colours(tmp_path: Path) -> None:
    shown(PaperOptions(charts=tmp_path / "images"))
    shown(PaperOptions("moonlight", dependence=True, charts=tmp_path / "images"))
    names = {path.name for path in (tmp_path / "images").iterdir()}
    assert names == {"paper-ratios.svg", "paper-dependence-moonlight.svg"}
    for path in (tmp_path / "images").iterdir():
        drawing = path.read_text()
        assert drawing.startswith("<svg")
        assert "--ink:" in drawing


def test_a_chart_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(OutputError, match="cannot be created"):
        shown(PaperOptions(charts=taken / "charts"))


@pytest.mark.parametrize(
    ("options", "said"),
    [(PaperOptions("llama"), "moonlight"), (PaperOptions(seeds=0), "at least one")],
)
def test_an_unknown_option_is_refused_with_the_known_ones(options: PaperOptions, said: str) -> None:
    with pytest.raises(InputError, match=said):
        shown(options)
