"""`openseer submit` of groups that the fleet cannot run leaves nothing running and names their lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError, PromptsError
from tests.api.served import Served, prompts, serving_job
from tests.local.remote.test_failed_responses import call

UNKNOWN_TOKEN = 300_000
LONG_TEXT = {"id": "long", "prompt": "a" * 40_000}


def written(path: Path, last: dict[str, Any], count: int = 700) -> Path:
    """Writes valid groups, more than one call may carry, followed by `last`."""
    path.write_text("".join(f"{json.dumps(group)}\n" for group in [*prompts(count, n=1), last]))
    return path


async def batches(server: Served) -> list[Any]:
    return (await server.call("GET", "/batches"))["batches"]


@pytest.mark.parametrize(
    "last",
    [
        {"id": "bad", "prompt_token_ids": [1, UNKNOWN_TOKEN]},
        {"id": "bad", "prompt_token_ids": [1] * 40_000},
        {"id": "bad", "prompt_token_ids": [1], "sampling": {"stopTokenIds": [UNKNOWN_TOKEN]}},
    ],
)
async def test_a_group_that_no_worker_can_run_is_refused_before_a_batch_opens(tmp_path: Path, last: Any) -> None:
    path = written(tmp_path / "g.jsonl", last, 3)
    async with Served(serving_job(workers=1)) as server:
        server.start_worker()
        while not (await server.call("GET", "/workers"))["workers"]:
            pass
        done = await call(server, "submit", str(path))
        assert isinstance(done.exception, PromptsError)
        assert f"{path} line 4: " in str(done.exception)
        assert await batches(server) == []


async def test_a_batch_opened_for_refused_groups_is_deleted(tmp_path: Path) -> None:
    path = written(tmp_path / "g.jsonl", LONG_TEXT)
    async with Served() as server:
        done = await call(server, "submit", str(path))
        assert isinstance(done.exception, InputError)
        told = str(done.exception)
        assert told.startswith(f"{path} line 701: group long: the prompt's 40000 tokens")
        assert told.endswith("batch 1, which was opened for them, is cancelled and deleted")
        assert await batches(server) == []


async def test_a_batch_that_may_hold_other_groups_is_named_and_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "g.jsonl", LONG_TEXT)
    async with Served() as server:
        for words in (("--key", "one"), ("--batch", "1")):
            done = await call(server, "submit", str(path), *words)
            assert "`openseer cancel 1` ends it" in str(done.exception)
            assert [batch["id"] for batch in await batches(server)] == [1]


async def test_a_refused_upload_reports_the_number_of_queued_groups() -> None:
    async with Served() as server:
        batch = await server.open()
        lines = "\n".join(map(json.dumps, [*prompts(130, n=1), LONG_TEXT]))
        headers = {"Content-Type": "application/x-ndjson"}
        refused = await server.http.post(f"/v1/batches/{batch}/groups", content=lines, headers=headers)
        assert refused.status_code == 422
        assert refused.json()["detail"].endswith(
            "; 128 groups of this call were queued before the error and remain queued"
        )


async def test_lengths_ignored_by_a_serving_job_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path / "g.jsonl", {"id": "a", "prompt": "a", "lengths": [3]}, 1)
    async with Served() as server:
        done = await call(server, "submit", str(path))
        assert done.exit_code == 0
        assert "note: lengths are for studies" in done.stderr
