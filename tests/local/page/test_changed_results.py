"""The page of a run whose results change while it is open shows an error, not another group's tokens."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_api.http.problems import ConflictProblem
from openseer_core.ids import GroupId
from openseer_driver.recorded_job import recorded_job
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunRecord
from openseer_local.page.ended_run import EndedRun
from tests.local.page.written import SPEC, result_line

A, B = result_line("a", tokens=(1, 1)), result_line("b", tokens=(2, 2))
OLD = 1000.0
"""Seconds: whatever is written later is younger, however coarse the clock of the file system is."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.write_run(RunRecord("seen", "", {"spec": SPEC}, "0", "complete"))
    folder.results_file.write_text(A + B)
    os.utime(folder.results_file, (OLD, OLD))
    return folder


def opened(folder: RunFolder) -> EndedRun:
    return EndedRun(folder, recorded_job(folder, folder.read_run())[0])


def replaced(path: Path) -> None:
    draft = path.with_name("new")
    draft.write_text(A + B)
    draft.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written anew in another order": lambda path: path.write_text(B + A),
    "cut": lambda path: path.write_text(A[:20]),
    "removed": lambda path: path.unlink(),
    "replaced": replaced,
    "longer, for the run goes on": lambda path: path.write_text(A + B + result_line("c")),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_results_are_not_read_at_old_offsets(folder: RunFolder, change: str) -> None:
    run = opened(folder)
    CHANGES[change](folder.results_file)
    with pytest.raises(ConflictProblem, match="has changed since it was opened"):
        await run.group_views(GroupId(0, "a"), None).view()


async def test_unchanged_results_are_read(folder: RunFolder) -> None:
    view = json.loads(await opened(folder).group_views(GroupId(0, "b"), None).view())
    assert view["responses"][0]["tokens"] == [2, 2]
