"""One session at a time holds a run's folder: a fresh start deletes nothing of a running session."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError, OutputError, StoreError
from openseer_core.manifest.home import at_home
from openseer_core.manifest.parse import parse_job
from openseer_driver import run_folder
from openseer_driver.folder_lock import FolderHeldError, held
from openseer_driver.prompts.source import PromptSource, open_source
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine, RunRecord
from openseer_driver.session import OpenRun, RunPlan, settings_note
from openseer_driver.submission import CheckedPrompts, check_prompts
from tests.driver.sample_runs import SMALL, result_line, write_run


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "run"},
        "spec": {"model": {"path": "none", "engine": "scripted"}, "prompts": {"path": "prompts.jsonl"}},
    }
    (tmp_path / "prompts.jsonl").touch()
    prompts = CheckedPrompts(PromptSource("prompts.jsonl", tmp_path / "prompts.jsonl"), 0, "")
    return RunPlan(parse_job(document, "job"), document, RunFolder(tmp_path / "run"), prompts)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[ResultLine]:
    simulation = write_run(tmp_path_factory.mktemp("few"), replace(SMALL, groups=2, size=2, mean=40.0))
    return [result_line(result) for result in simulation.results()]


def files(plan: RunPlan) -> dict[str, bytes]:
    """Contents of all files in the folder, by path."""
    root = plan.folder.path
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def begin(plan: RunPlan, lines: list[ResultLine]) -> OpenRun:
    """Begins a session with results and a store."""
    run = OpenRun(plan).__enter__()
    run.writer.write(lines)
    plan.folder.create(plan.folder.store_folder)
    (plan.folder.store_folder / "lock").touch()
    (plan.folder.store_folder / "appendonly.aof").write_bytes(b"log")
    return run


def test_changed_settings_without_effect_on_results_are_named(plan: RunPlan) -> None:
    assert settings_note(plan.folder, plan.job) == ""
    with OpenRun(plan):
        pass
    assert settings_note(plan.folder, plan.job) == ""
    spec = plan.document["spec"] | {"rollout": {"quantumTokens": 64}, "workers": {"replicas": 5}}
    other = parse_job(plan.document | {"spec": spec}, "job")
    assert settings_note(plan.folder, other) == (
        "resuming with other settings, which do not change results: spec.rollout.quantumTokens, spec.workers.replicas"
    )


def test_setting_the_clock_does_not_change_a_sessions_duration(plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (-3600.0, 3600.0):
        with OpenRun(replace(plan, fresh=True)) as run:
            set_to = time.time() + step
            monkeypatch.setattr(time, "time", lambda set_to=set_to: set_to)
            assert 0 <= run.clock() - run.clock.began < 1800
        monkeypatch.undo()
        [session] = plan.folder.read_run().sessions
        assert session.ended_at is not None
        assert 0 <= session.ended_at - session.started_at < 1800


def test_starting_over_is_refused_while_a_session_runs_and_deletes_nothing(
    plan: RunPlan, lines: list[ResultLine]
) -> None:
    run = begin(plan, lines)
    before = files(plan)
    with pytest.raises(FolderHeldError, match="another run is writing here"):
        OpenRun(replace(plan, fresh=True)).__enter__()
    assert files(plan) == before
    run.__exit__(None, None, None)


def test_starting_over_deletes_the_earlier_run(plan: RunPlan, lines: list[ResultLine]) -> None:
    begin(plan, lines).__exit__(None, None, None)
    with OpenRun(plan) as run:
        assert (run.resumed, run.writer.count) == (True, len(lines))
    with OpenRun(replace(plan, fresh=True)) as run:
        assert (run.resumed, run.writer.count) == (False, 0)
        assert set(files(plan)) == {"results.jsonl", "run.json", "job.json"}


def test_starting_over_is_refused_while_the_store_still_runs(
    plan: RunPlan, lines: list[ResultLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "WAIT_SECONDS", 0.0)
    begin(plan, lines).__exit__(None, None, None)
    before = files(plan)
    with held(plan.folder.store_folder / "lock"), pytest.raises(FolderHeldError, match="store/lock"):
        OpenRun(replace(plan, fresh=True)).__enter__()
    assert files(plan) == before


def planned(folder: Path, path: Path, fields: dict[str, str] | None = None) -> RunPlan:
    """A run with prompts at a path."""
    document: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "run"},
        "spec": {
            "model": {"path": "none", "engine": "scripted"},
            "prompts": {"path": str(path)} | ({"fields": fields} if fields else {}),
        },
    }
    job = parse_job(at_home(document, str(folder)), "job")
    return RunPlan(job, document, RunFolder(folder / "run"), check_prompts(job, open_source(job), lambda _: None))


def refusal(plan: RunPlan) -> str:
    with pytest.raises(InputError) as caught:
        plan.check_resumable("Use --fresh")
    return str(caught.value)


def test_a_run_resumes_with_the_same_prompts_at_another_path(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n')
    with OpenRun(planned(tmp_path, Path("~/prompts.jsonl"))):
        pass
    planned(tmp_path, Path("~/prompts.jsonl")).check_resumable("")
    planned(tmp_path, path).check_resumable("")
    path = path.rename(tmp_path / "moved.jsonl")
    planned(tmp_path, path).check_resumable("")


def test_a_run_with_changed_prompts_or_mapping_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a", "more": "b"}\n')
    with OpenRun(planned(tmp_path, path, {"prompt": "prompt"})):
        pass
    other = f"{tmp_path}/run: holds a run of another manifest; changed:"
    assert refusal(planned(tmp_path, path, {"prompt": "more"})) == f"{other} spec.prompts.fields.prompt. Use --fresh"
    with path.open("a") as file:
        file.write('{"prompt": "c"}\n')
    assert refusal(planned(tmp_path, path, {"prompt": "prompt"})) == (
        f"{other} prompts.sha256. {path} has changed since the run began; restore it. Use --fresh"
    )


def test_a_sessions_error_is_reported_also_if_run_json_is_unwritable(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_folder: RunFolder, record: RunRecord) -> None:
        raise OutputError("run.json: cannot be written: No space left on device")

    def fail() -> None:
        with OpenRun(plan):
            monkeypatch.setattr(RunFolder, "write_run", full)
            raise StoreError("no room for its log")

    with pytest.raises(StoreError, match="no room for its log"):
        fail()
