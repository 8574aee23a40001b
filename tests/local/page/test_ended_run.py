"""The page of a run that has ended, from its folder."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from openseer_api.http.auth import BearerAuth
from openseer_api.http.problems import NotFoundProblem
from openseer_api.page.app import page_app
from openseer_core.ids import GroupId
from openseer_driver.recorded_job import recorded_job
from openseer_driver.run_folder import RunFolder
from openseer_local.main import app
from openseer_local.page.ended_explained import SIMULATED
from openseer_local.page.ended_run import EndedRun
from tests.driver.explain.planted import STEP, drawn, write_planted

GROUPS, SIZE, LONGEST = 6, 4, 120
DOCUMENT: dict[str, Any] = {
    "apiVersion": "openseer.dev/v1alpha1",
    "kind": "RolloutJob",
    "metadata": {"name": "seen"},
    "spec": {
        "model": {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.001, "slots": 4}},
        "groupSize": SIZE,
        "sampling": {"maxTokens": LONGEST},
        "rollout": {"quantumTokens": 32},
        "workers": {"replicas": 2},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return ran(tmp_path_factory.mktemp("ended"))[0]


def ran(place: Path, *options: str) -> tuple[RunFolder, str]:
    """The folder of a run, and its output."""
    prompts = place / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"q{n}", "prompt": f"question {n}"}) + "\n" for n in range(GROUPS)))
    document = DOCUMENT | {"spec": DOCUMENT["spec"] | {"prompts": {"path": str(prompts)}}}
    manifest = place / "job.json"
    manifest.write_text(json.dumps(document))
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(place / "run"), *options])
    assert result.exit_code == 0, result.output
    return RunFolder(place / "run"), result.output


@pytest.fixture
def run(folder: RunFolder) -> EndedRun:
    return EndedRun(folder, recorded_job(folder, folder.read_run())[0])


async def test_a_run_shows_all_of_its_leases(run: EndedRun, folder: RunFolder) -> None:
    view = json.loads(await run.job_view())
    assert view["live"] is False
    assert (view["card"]["state"], view["card"]["progress"]) == ("finished", 1.0)
    assert [lane["worker"] for lane in view["lanes"]] == ["worker-0", "worker-1"]
    assert len(view["bars"]["lane"]) == sum(len(line.chunks) for line in folder.results())
    assert None not in view["bars"]["end"]


async def test_a_batch_of_a_run_shows_groups_and_lengths(run: EndedRun, folder: RunFolder) -> None:
    view = json.loads(await run.batch_view(0))
    assert sorted(view["groups"]["name"]) == sorted(f"q{number}" for number in range(GROUPS))
    assert view["groups"]["ok"] == [SIZE] * GROUPS
    assert sum(view["histogram"]["counts"]) == GROUPS * SIZE
    assert view["batch"]["metrics"]["tokens"] == sum(len(line.token_ids) for line in folder.results())


async def test_a_group_of_an_ended_run_is_sent_whole_in_its_first_view(run: EndedRun, folder: RunFolder) -> None:
    view = run.group_views(GroupId(0, "q1"), None).view
    first, second, third = json.loads(await view()), await view(), await view()
    lines = {line.index: line for line in folder.results() if line.group == "q1"}
    assert {one["index"]: one["tokens"] for one in first["responses"]} == {
        index: line.token_ids for index, line in lines.items()
    }
    assert second == third


async def test_one_response_of_a_run_is_found_by_its_index(run: EndedRun) -> None:
    view = json.loads(await run.group_views(GroupId(0, "q2"), 3).view())
    assert [one["index"] for one in view["responses"]] == [3]


async def test_missing_parts_of_a_run_are_refused_by_name(run: EndedRun) -> None:
    with pytest.raises(NotFoundProblem, match="no batch 4"):
        await run.batch_view(4)
    with pytest.raises(NotFoundProblem, match="group 0/nobody"):
        await run.group_views(GroupId(0, "nobody"), None).view()


async def test_the_page_of_a_run_needs_its_token(run: EndedRun) -> None:
    transport = httpx.ASGITransport(page_app(run, BearerAuth("told")))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        assert (await http.get("/page/api/jobs/default/seen")).status_code == 401
        assert (await http.post("/page/login", json={"token": "guessed"})).status_code == 401
        assert (await http.post("/page/login", json={"token": "told"})).status_code == 204
        assert (await http.get("/v1/job")).status_code == 404


async def explained(run: EndedRun) -> dict[str, Any]:
    """The explanation after the best times have been simulated."""
    async with asyncio.timeout(120):
        while (view := json.loads(await run.explained()))["live"]:
            await asyncio.sleep(0.05)
    return view


async def test_a_run_is_explained_at_once_and_its_best_times_follow(run: EndedRun, folder: RunFolder) -> None:
    first = json.loads(await run.explained())
    assert (first["live"], first["best"], first["no_best"]) == (True, None, SIMULATED)
    last = await explained(run)
    assert last["parts"] == first["parts"]
    assert sum(part["worker_seconds"] or 0.0 for part in last["parts"]) == pytest.approx(last["worker_seconds"])
    assert last["best"]["bound"] <= last["best"]["oracle"]


async def test_a_run_has_its_busy_and_idle_gpu_time(run: EndedRun) -> None:
    view, told = json.loads(await run.job_view()), json.loads(await run.explained())
    away = sum(part["worker_seconds"] for part in told["parts"] if part["name"] in ("boot", "lost"))
    spent = view["card"]["busy_gpu_seconds"] + view["card"]["idle_gpu_seconds"]
    assert view["card"]["busy_gpu_seconds"] > 0
    assert spent == pytest.approx(told["worker_seconds"] - away, abs=0.2)


async def test_a_slow_worker_is_named_in_its_lane_and_in_the_first_finding(tmp_path: Path) -> None:
    planted = await asyncio.to_thread(write_planted, tmp_path, drawn(), steps=(STEP, 2.5 * STEP))
    run = EndedRun(planted, recorded_job(planted, planted.read_run())[0])
    slow = {lane["worker"]: lane["slow"] for lane in json.loads(await run.job_view())["lanes"]}
    assert slow["worker-0"] == ""
    assert slow["worker-1"].startswith("generates responses at 0.4")
    finding = json.loads(await run.explained())["findings"][0]
    assert (finding["subject"], finding["cause"]) == ("worker-1", "slow_worker")
    assert "check its node and GPU" in finding["advice"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert "not the folder of a run" in str(result.exception)


def test_a_run_with_a_page_prints_the_command_to_reopen_it(tmp_path: Path) -> None:
    folder, output = ran(tmp_path, "--page")
    assert output.replace("\n", " ").rstrip().endswith(f"to view the run: openseer view {folder.path}")
