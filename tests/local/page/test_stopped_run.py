"""The page of a run that was stopped early shows its progress; a running run is not shown as ended."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from openseer_core.errors import InputError
from openseer_driver.recorded_job import recorded_job
from openseer_driver.report.report import make_report
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.run_lines import RunRecord, RunState, Session
from openseer_local.main import app
from openseer_local.page.ended_run import EndedRun
from tests.local.page.written import GROUP_SIZE, SPEC, result_line

REQUESTS = 800


def stopped(path: Path, *, sampled: bool = True, state: RunState = "stopped") -> EndedRun:
    """A run in which one of four groups has its results."""
    folder = RunFolder(path)
    folder.write_run(RunRecord("seen", "", {"spec": SPEC}, "0", state, "", [Session(0.0, 3.0)]))
    folder.results_file.write_text("".join(result_line(index=index) for index in range(GROUP_SIZE)))
    sample: dict[str, Any] = {
        "at": 2.0,
        "waiting": 790,
        "inflight": 6,
        "closed": 4,
        "requests": REQUESTS,
        "tokens": 4,
        "workers": {},
    }
    if sampled:
        folder.samples_file.write_text(json.dumps(sample) + "\n")
    return EndedRun(folder, recorded_job(folder, folder.read_run())[0])


async def test_the_progress_of_a_stopped_run_counts_all_its_requests(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    assert (await run.card()).progress == GROUP_SIZE / REQUESTS
    batch = json.loads(await run.batch_view(0))["batch"]
    assert (batch["state"], batch["progress"]) == ("sealed", GROUP_SIZE / REQUESTS)
    assert (batch["metrics"]["requests"], batch["metrics"]["groups"]) == (REQUESTS, REQUESTS // GROUP_SIZE)


async def test_without_samples_a_stopped_run_has_no_progress(tmp_path: Path) -> None:
    run = stopped(tmp_path, sampled=False)
    assert (await run.card()).progress is None
    metrics = json.loads(await run.batch_view(0))["batch"]["metrics"]
    assert (metrics["requests"], metrics["groups"], metrics["requests_ok"]) == (0, 0, GROUP_SIZE)


def test_a_running_run_is_not_shown_as_ended(tmp_path: Path) -> None:
    stopped(tmp_path, state="running")
    with ResultsWriter(RunFolder(tmp_path)):
        result = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "this run has not ended: view it with openseer run --page" in str(result.exception)


def test_a_folder_held_by_a_session_counts_as_running(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_written
    with ResultsWriter(folder):
        assert folder.is_written
    assert not folder.is_written


async def test_a_run_whose_process_was_killed_is_shown_as_killed(tmp_path: Path) -> None:
    card = await stopped(tmp_path, state="running").card()
    assert (card.state, card.reason) == ("failed", "it was killed")


DRAFTS = {"draft_steps": 4, "drafted_tokens": 40, "accepted_tokens": 20, "steps_refs_1": 10, "tokens_refs_1": 29}


async def test_a_run_with_drafts_has_its_acceptance_length_and_tail(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_run(RunRecord("seen", "", {"spec": SPEC}, "0", "complete", "", [Session(0.0, 3.0)]))
    places = [(group, index) for group in "abcde" for index in range(GROUP_SIZE)]
    lines = [result_line(*place, ended_at=9.0 if place == places[-1] else 2.0) for place in places]
    folder.results_file.write_text("".join(lines))
    sample = {"at": 8.0, "requests": len(places), "workers": {"w": {"slots": 4, "drafts": DRAFTS}}}
    folder.samples_file.write_text(json.dumps(sample) + "\n")
    run = EndedRun(folder, recorded_job(folder, folder.read_run())[0])
    assert (await run.card()).acceptance_length == 2.9
    metrics = json.loads(await run.batch_view(0))["batch"]["metrics"]
    assert metrics["tail_seconds"] == make_report(read_trace(folder)).tail_seconds == 7.0
    assert (metrics["drafted_tokens"], metrics["acceptance_length"]) == (40, 2.9)
