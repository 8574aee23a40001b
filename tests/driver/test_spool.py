"""Rendered groups are in an unnamed file: read in the order of their addition, freed with the process."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from openseer_core.admission import ModelLimits
from openseer_core.errors import OutputError
from openseer_core.manifest.parse import parse_job
from openseer_core.queue.group import GroupSpec
from openseer_driver import spool as spool_module
from openseer_driver.prompts.source import open_source
from openseer_driver.run_folder import RunFolder
from openseer_driver.session import PIECE, OpenRun, RunPlan
from openseer_driver.spool import GroupSpool
from openseer_driver.submission import check_prompts

PROMPTS = 3 * PIECE


def plan_of(folder: Path) -> RunPlan:
    """A run of PROMPTS prompts; the same one at each call."""
    lines = [
        f'{{"prompt_token_ids": [{number}, 7], "metadata": {{"n": {number}}}}}\n' for number in range(1, PROMPTS + 1)
    ]
    (folder / "prompts.jsonl").write_text("".join(lines))
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "run"},
        "spec": {
            "model": {"path": "none", "engine": "scripted"},
            "prompts": {"path": str(folder / "prompts.jsonl")},
            "groupSize": 2,
        },
    }
    job = parse_job(document, "job")
    return RunPlan(job, document, RunFolder(folder / "run"), check_prompts(job, open_source(job), lambda _: None))


async def prepared(plan: RunPlan, note: Callable[[str], None] = lambda _: None) -> list[GroupSpec]:
    """All groups of a session of the run, as they would be submitted."""

    async def limits() -> ModelLimits:
        return ModelLimits()

    with OpenRun(plan):
        async with plan.prepared(limits, 0.0, note, lambda _: None) as (_, spool):
            assert (spool.groups, spool.requests) == (PROMPTS, 2 * PROMPTS)
            return list(spool)


def files(plan: RunPlan) -> set[str]:
    return {path.name for path in plan.folder.path.iterdir()}


LEFT = {"results.jsonl", "run.json", "job.json"}


async def test_a_spool_can_be_read_repeatedly_and_leaves_no_file(tmp_path: Path) -> None:
    groups = await prepared(plan_of(tmp_path))
    with GroupSpool(tmp_path / "run") as spool:
        assert [spool.add(groups[:5]), spool.add([]), spool.add(groups[5:])] == [5, 0, PROMPTS - 5]
        assert next(iter(spool)) == groups[0]
        assert list(spool) == list(spool) == groups
    assert files(plan_of(tmp_path)) == LEFT


async def test_a_session_cancelled_during_rendering_resumes_with_the_same_groups(tmp_path: Path) -> None:
    def cancel(_: str) -> None:
        raise asyncio.CancelledError

    plan = plan_of(tmp_path)
    with pytest.raises(asyncio.CancelledError):
        await prepared(plan, cancel)
    assert plan.folder.read_run().state == "stopped"
    assert files(plan) == LEFT
    plan.check_resumable("")
    resumed = await prepared(plan_of(tmp_path))
    assert resumed == await prepared(plan_of(tmp_path))
    assert [group.id.name for group in resumed] == [f"line-{number}" for number in range(1, PROMPTS + 1)]


async def test_a_session_killed_during_rendering_resumes_with_the_same_groups(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-m", __name__, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    plan = plan_of(tmp_path)
    assert (plan.folder.read_run().state, files(plan)) == ("running", LEFT)
    plan.check_resumable("")
    (tmp_path / "other").mkdir()
    assert await prepared(plan) == await prepared(plan_of(tmp_path / "other"))


async def test_a_full_disk_is_reported_with_the_remedy_and_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> IO[bytes]:
        return open("/dev/full", "w+b")  # noqa: PTH123 - the spool holds it

    plan = plan_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(spool_module, "TemporaryFile", full)
        with pytest.raises(OutputError) as caught:
            await prepared(plan)
    assert str(caught.value) == (
        f"{tmp_path}/run: cannot store the rendered prompts: No space left on device; no data are lost: free disk "
        "space or repair the folder, and run the same command again"
    )
    assert plan.folder.read_run().state == "failed"
    plan.check_resumable("")
    assert len(await prepared(plan)) == PROMPTS


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="gone: cannot store the rendered prompts: No such file"):
        GroupSpool(tmp_path / "gone")


def _killed(folder: Path) -> None:
    asyncio.run(prepared(plan_of(folder), lambda _: os.kill(os.getpid(), signal.SIGKILL)))


if __name__ == "__main__":
    _killed(Path(sys.argv[1]))
