"""A batch job under faults: prompts from a file, a driver, results on a disk."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from openseer_core.ids import RequestId
from openseer_core.tokens import pack_tokens
from openseer_driver.run_folder import RunFolder
from tests.chaos.members import Member
from tests.chaos.scene import Scene, scene
from tests.chaos.schedule import Fault
from tests.chaos.verdict import Taken, Verdict, check_failures, check_results, request_ids, scripted_response
from tests.chaos.workload import RETRIES, group_count, write_prompts


async def run(stage: Scene, faults: list[Fault], seconds: float) -> None:
    """Applies the faults to one job, and checks the results on its disk."""
    async with _whole_responses(stage, seconds) as whole:
        output, driver = await _begin(stage, seconds)
        taken = await _responses(stage, faults, output, driver)
        names = (f"g{number}" for number in range(group_count(seconds, stage.job)))
        check_results(stage.verdict, taken, request_ids(0, names, stage.job.spec.group_size), await whole)
    check_failures(stage.verdict, taken, stage.dead, RETRIES)
    stage.note_recoveries(taken)
    if driver.done and output.audit_file.exists():
        stage.verdict.audit = json.loads(output.audit_file.read_text())
        stage.verdict.audit["violations"] = stage.verdict.audit["violations"][:5]
    if not stage.verdict.audit.get("ok"):
        stage.verdict.add("audit is clean", str(stage.verdict.audit.get("by_kind", "there is none")))
    await stage.leave()


async def _begin(stage: Scene, seconds: float) -> tuple[RunFolder, Member]:
    write_prompts(stage.folder, group_count(seconds, stage.job))
    output = RunFolder(stage.disk / "run")
    command = ["-m", "openseer_driver.main", "--job", str(stage.folder / "job.json"), "--store", stage.url]
    stage.start_workers()
    await stage.until_workers_are_there()
    return output, stage.add_head([*command, "--output", str(output.path), "--http-port", "0"])


async def _responses(stage: Scene, faults: list[Fault], output: RunFolder, driver: Member) -> list[Taken]:
    def written() -> int:
        return output.results_file.stat().st_size if output.results_file.exists() else 0

    await stage.play(faults, lambda: driver.done, written)
    return [Taken(line.request, line.status, pack_tokens(line.token_ids), line.chunks) for line in output.results()]


@asynccontextmanager
async def _whole_responses(
    stage: Scene, seconds: float
) -> AsyncGenerator["asyncio.Future[Callable[[RequestId], bytes] | None]"]:
    """The expected responses, computed before or during the run; None at a temperature above 0."""
    match stage.verdict.engine:
        case "vllm-pool":
            known = asyncio.ensure_future(_undisturbed(stage.verdict.seed, seconds))
        case engine:
            known = asyncio.get_running_loop().create_future()
            known.set_result(scripted_response if engine == "scripted" else None)
    try:
        yield known
    finally:
        known.cancel()


async def _undisturbed(seed: int, seconds: float) -> Callable[[RequestId], bytes]:
    """The same responses by one worker without faults, without a pool and without moves."""
    verdict, folder = Verdict(seed, "batch", "vllm-alone"), Path(tempfile.mkdtemp(prefix="calm-", dir="/tmp"))
    try:
        async with scene(folder, verdict, "batch", "vllm-alone") as stage:
            taken = await _responses(stage, [], *await _begin(stage, seconds))
            await stage.leave()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert verdict.ok, verdict.lines()
    return {result.request: result.tokens for result in taken}.__getitem__
