"""One whole run with played engines: time, failures, notes, a full disk."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_core.errors import EngineError, InputError, ModelError, OutputError
from openseer_worker.gpu_bench import main
from openseer_worker.gpu_bench.figures import Figure, read, write, write_figure
from openseer_worker.gpu_bench.options import BenchOptions
from openseer_worker.gpu_bench.plan import AGAIN, DRAFTS, EXACTNESS, SMOKE, STOCK
from openseer_worker.gpu_bench.ways import DEFAULT_TIER, Order
from openseer_worker.vllm import environment

SEEN = {
    "greedy_same": 8, "greedy_of": 8, "greedy_tokens": 96, "greedy_tokens_per_step": 4.8, "chi_square": 20.0,
    "degrees": 20, "deviations": 0.1, "samples": 1000,
}  # fmt: skip


def measured(order: Order) -> str:
    """Writes an engine's figures."""
    folder = Path(order.folder)
    if order.way == SMOKE:
        if order.exact:
            write(folder, {"kind": "texts", "greedy": [[5]], "samples": {"5": 1}})
        write(folder, {"kind": "tier", "tier": order.tier})
    elif order.way == EXACTNESS:
        write(folder, {"kind": "exactness", **SEEN})
    for part in order.parts:
        write_figure(
            folder,
            Figure(
                order.way, part.batch, part.drafts, 48, [2.0, 2.0], 1.0, 1.0, part.drafts, "", 1, "V1", False,
                order.tier, "2026-11-27",
            ),
        )  # fmt: skip
    return ""


Outcome = Callable[[Order], str]


class Played:
    """A replacement of `Children`. `outcomes`: function per way that plays an order."""

    outcomes: dict[str, Outcome]
    cannot_start = ""
    left = False
    """Whether a process runs."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.warm = False
        self.cpu_seconds = 1.0

    def __enter__(self) -> "Played":
        return self

    def __exit__(self, *error: object) -> None:
        Played.left = False

    def warm_up(self, seconds: float) -> float:
        if self.cannot_start:
            raise EngineError(self.cannot_start)
        self.warm = Played.left = True
        return 1.0

    def run(self, order: Order, seconds: float, watch: Callable[[], None]) -> str:
        outcome = self.outcomes.get(order.way, measured)(order)
        watch()
        return outcome


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    Played.outcomes, Played.cannot_start = {}, ""
    monkeypatch.setattr(main, "Children", Played)
    monkeypatch.setattr(main, "is_cpu_build", lambda: True)
    monkeypatch.setattr(main, "check_version", lambda: None)
    return Played


def bench(folder: Path, *, minutes: float = 5.0, exact: Path | None = None, fresh: bool = False) -> tuple[str, str]:
    """Runs the bench; returns its final output and its progress lines."""
    shown: list[str] = []
    progress: list[str] = []
    ways = (STOCK, DRAFTS)
    options = BenchOptions(minutes=minutes, batches=(2,), ways=ways, output=folder, exact_model=exact, fresh=fresh)
    assert main.run(options, shown.append, progress.append) == 0
    return "\n".join(shown), "\n".join(progress)


def fails(order: Order) -> str:
    write(Path(order.folder), {"kind": "note", "way": order.way, "text": "RuntimeError: no room"})
    return "failed with exit code 1"


def test_an_unchecked_version_of_vllm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "check_version", environment.check_version)
    monkeypatch.setattr(environment, "engine_version", lambda: "0.99.0")
    monkeypatch.delenv(environment.ANY_VERSION, raising=False)
    with pytest.raises(ModelError, match=r"vLLM 0\.99\.0 is installed"):
        bench(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_whole_run_on_a_cpu_states_why_there_are_no_rows(tmp_path: Path) -> None:
    shown, progress = bench(tmp_path)
    assert "no rows for draft_ratios.json: rows of CPUs come from benchmarks/speculation.py" in shown
    assert "drafts: an engine is built, and the drafter compiled" in progress


def test_too_little_time_starts_no_engine_and_is_reported(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no step .* was measured: time is up after 3 s"):
        bench(tmp_path, minutes=0.05)
    assert not Played.left


def test_existing_figures_are_shown_when_no_engine_starts(tmp_path: Path) -> None:
    Played.outcomes = {AGAIN: lambda order: "killed by signal 9"}
    bench(tmp_path)
    Played.cannot_start = "vLLM cannot be imported: no memory"
    shown, progress = bench(tmp_path)
    assert "cpu, model tiny" in shown
    assert "vLLM cannot be imported: no memory; the same command resumes" in progress


def test_a_repeated_failure_keeps_its_reason(tmp_path: Path) -> None:
    Played.outcomes = {AGAIN: fails}
    for _ in range(2):
        shown, progress = bench(tmp_path)
        assert "stock again: RuntimeError: no room" in progress
        assert "stock again: RuntimeError: no room" in shown


def test_a_note_is_removed_when_the_way_is_measured_later(tmp_path: Path) -> None:
    Played.outcomes = {AGAIN: fails}
    bench(tmp_path)
    Played.outcomes = {}
    shown, _ = bench(tmp_path)
    assert read(tmp_path).notes == {}
    assert "no room" not in shown


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def test_a_broken_small_model_skips_only_exactness(tmp_path: Path) -> None:
    Played.outcomes = {SMOKE: lambda order: fails(order) if order.exact else measured(order)}
    exact = model(tmp_path / "broken")
    shown, _ = bench(tmp_path / "out", exact=exact)
    found = read(tmp_path / "out")
    assert found.notes == {EXACTNESS: f"{exact} does not run: RuntimeError: no room"}
    assert len(found.steps) == 6
    assert "exactness: not measured" in shown


def test_the_reason_is_shown_when_no_engine_runs(tmp_path: Path) -> None:
    Played.outcomes = {SMOKE: fails}
    with pytest.raises(EngineError, match="vLLM does not run here: RuntimeError: no room"):
        bench(tmp_path)
    assert read(tmp_path).steps == {}


def test_another_small_model_is_not_compared_with_the_first(tmp_path: Path) -> None:
    first = model(tmp_path / "first")
    bench(tmp_path / "out", exact=first)
    bench(tmp_path / "out", exact=first)
    shutil.copytree(first, tmp_path / "other")
    with pytest.raises(InputError, match=r"exact model .*first.*other.*--output"):
        bench(tmp_path / "out", exact=tmp_path / "other")
    (first / "model.safetensors").write_bytes(b"trained")
    with pytest.raises(InputError, match="exact model"):
        bench(tmp_path / "out", exact=first)
    bench(tmp_path / "out", exact=first, fresh=True)


def test_a_full_disk_ends_the_run_and_keeps_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full(order: Order) -> str:
        monkeypatch.setattr(os, "fsync", refuse)
        return "failed with exit code 70"

    Played.outcomes = {DRAFTS: full}
    with pytest.raises(OutputError, match=rf"{tmp_path} cannot be used: No space left .* are kept"):
        bench(tmp_path)
    assert not Played.left
    assert read(tmp_path).tier == DEFAULT_TIER
    assert len(read(tmp_path).steps) == 1
