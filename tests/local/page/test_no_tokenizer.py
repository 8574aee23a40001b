"""A run whose tokenizer is not on this machine: the page shows token ids and the reason."""

import json
from pathlib import Path

import pytest

from openseer_core.ids import GroupId
from openseer_driver.recorded_job import recorded_job
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunRecord
from openseer_local.page.ended_run import EndedRun
from openseer_local.page.serving import reader_of
from tests.local.page.written import SPEC, result_line


async def test_a_missing_model_at_a_relative_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # retries take 40 s without a network
    folder = RunFolder(tmp_path)
    spec = SPEC | {"model": {"path": "models/tiny"}}
    folder.write_run(RunRecord("seen", "", {"spec": spec}, "0", "complete"))
    folder.results_file.write_text(result_line())
    job, _ = recorded_job(folder, folder.read_run())
    view = json.loads(await EndedRun(folder, job, *reader_of(job)).group_views(GroupId(0, "g"), None).view())
    assert view["note"].startswith("no tokenizer at models/tiny here, so token ids are shown")
    assert "from the folder where it was started" in view["note"]
    assert view["prompt"] == "1"


async def test_the_expected_length_of_a_response_is_in_its_view(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_run(RunRecord("seen", "", {"spec": SPEC}, "0", "complete"))
    folder.results_file.write_text(result_line(index=0) + result_line(index=1, tokens=(1, 2, 3)))
    job, _ = recorded_job(folder, folder.read_run())
    view = json.loads(await EndedRun(folder, job).group_views(GroupId(0, "g"), None).view())
    assert [one["expected"] for one in view["responses"]] == [None, 2]
