"""Failed responses in the commands over the API: reasons and exit codes."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from openseer_core.errors import ResponsesFailedError
from openseer_core.ids import INITIAL_VERSION, WorkerId
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, Finish
from openseer_core.queue.states import FinishReason, Status
from openseer_local.main import app
from openseer_worker.engine_requests import refusal
from tests.api.served import TOKEN, Served, prompts

WORKER = WorkerId("worker-0", "played")
QUERY = ClaimQuery(
    INITIAL_VERSION, (SHARED_LANE,), slots=4, blocks=100, layout=whole(16), quantum=64, context_tokens=4096
)
WHY = "token {} is not in the vocabulary"


async def call(server: Served, *arguments: str) -> Any:
    """Runs one command; `output` holds its output, `exception` the error that `main` turns into an exit code."""
    words = [*arguments, "--url", server.url, "--token", TOKEN]
    return await asyncio.to_thread(CliRunner().invoke, app, words)


def played(claim: Claim) -> Finish:
    """Completes a request; for the third and later prompts as refused by the engine."""
    number = int(claim.request.group.name.removeprefix("g"))
    if number >= 2:
        return refusal(claim, WHY.format(9000 + number))
    return Finish(Delta(claim.request, claim.fence, 0), Status.OK, FinishReason.STOP)


@asynccontextmanager
async def playing() -> AsyncGenerator[Served]:
    """A server whose only worker refuses some requests."""
    async with Served() as server:

        async def work() -> None:
            while True:
                claims = await server.store.claim(WORKER, QUERY)
                await server.store.complete(WORKER, [played(claim) for claim in claims])
                await asyncio.sleep(0.01)

        worker = asyncio.create_task(work())
        yield server
        worker.cancel()


async def test_results_end_by_reason_unless_failures_are_allowed(tmp_path: Path) -> None:
    async with playing() as server:
        batch = await server.open()
        await server.upload(batch, prompts(4, n=1), seal=True)
        await server.until_complete(batch)
        for words in ((), ("--output", str(tmp_path / "r.jsonl"))):
            for _ in range(2):  # a repeat has the same output
                done = await call(server, "results", str(batch), *words)
                assert isinstance(done.exception, ResponsesFailedError)
                assert str(done.exception).startswith(f"2 of 4 failed: {WHY.format('…')} (g2, g3)\n")
            done = await call(server, "results", str(batch), *words, "--allow-failures")
            assert done.exit_code == 0
            assert "2 of 4 failed" in done.stderr
        done = await call(server, "results", str(batch), *words, "--json", "--allow-failures")
        [reason] = json.loads(done.stdout)["failures"]["reasons"]
        assert (reason["count"], reason["examples"][1]["reason"]) == (2, WHY.format(9003))


async def test_a_submission_with_wait_exits_by_its_failures(tmp_path: Path) -> None:
    (tmp_path / "groups.jsonl").write_text("".join(f"{json.dumps(group)}\n" for group in prompts(3, n=1)))
    words = ("submit", str(tmp_path / "groups.jsonl"), "--key", "one")
    async with playing() as server:
        done = await call(server, *words, "--wait")
        assert isinstance(done.exception, ResponsesFailedError)
        assert str(done.exception).startswith("1 of 3 failed\n  1: see the stop_reason of their results\n")
        assert (await call(server, *words, "--wait", "--allow-failures")).exit_code == 0
        assert (await call(server, *words)).exit_code == 0
        assert "1 failed" in (await call(server, "status", "1")).output
