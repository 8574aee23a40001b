"""`openseer explain URL` prints the use of time of a running job."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openseer_api.app import create_app
from openseer_api.http.server import WebServer
from openseer_core.errors import InputError
from openseer_local.main import app
from openseer_local.remote.connection import RefusedError
from tests.api.routes.test_access import TwoJobs, TwoTenants
from tests.api.served import LONG, TOKEN, Served
from tests.ports import reserved_port

GROUP = [{"id": "q", "prompt_token_ids": [1, 2, 3]}]


async def told(*arguments: str) -> str:
    def run() -> str:
        result = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=True)
        if result.exception is not None:
            raise result.exception
        return result.output

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("place", ["", "/", "/page/", "/page/#/job/default/served"])
async def test_a_running_job_is_explained_so_far(place: str) -> None:
    async with Served(held=True) as served:
        served.start_worker()
        batch = await served.open(sampling=LONG)
        await served.upload(batch, GROUP, seal=True)
        async with asyncio.timeout(60):
            while "in the tail" not in (text := await told(served.url + place, "--token", TOKEN)):
                await asyncio.sleep(0.1)
        assert "Nothing stands out." in text
        assert "so far, from the first request queued; 1 worker," in text
        assert "decoding, slots free, no request waited" in text
        assert "The best time possible is not known: the number and the lengths of the responses" in " ".join(
            text.split()
        )


async def test_the_json_output_equals_the_pages_data(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    async with Served() as served:
        found = json.loads(await told(served.url, "--token-file", str(file), "--json"))
        assert (found["live"], found["workers"], found["best"]) == (True, 0, None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--token: none given"),
        (("--token", "a-guess"), "explain: 401: the token is not this job's"),
        (("--token", TOKEN, "--kv-tokens", "5"), "a running job is not simulated"),
        (("--token-file", "/nowhere/token"), "cannot be read: No such file"),
    ],
)
async def test_errors_of_a_call_are_reported(
    options: Sequence[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENSEER_TOKEN", "OPENSEER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    async with Served() as served:
        with pytest.raises((InputError, RefusedError), match=says) as caught:
            await told(served.url, *options)
        assert caught.value.exit_code == InputError.exit_code


async def test_behind_a_gateway_the_url_names_the_job() -> None:
    server = WebServer(create_app(TwoJobs(), TwoTenants(), many=True), port=0, finish_seconds=1)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    root = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        assert "Nothing stands out." in await told(f"{root}/jobs/team-a/a", "--token", "team-a/a")
        assert "Nothing stands out." in await told(f"{root}/page/#/job/team-a/a", "--token", "team-a/a")
        assert "Nothing stands out." in await told(f"{root}/page/#/job/team-a/a/batch/3", "--token", "team-a/a")
        for place in ("jobs/team-b/b", "page/#/job/team-b/b"):
            with pytest.raises(RefusedError, match="explain: 403: this token may not use this job"):
                await told(f"{root}/{place}", "--token", "team-a/a")
    finally:
        server.should_exit = True
        await serving


async def test_an_unreachable_or_foreign_server_is_reported() -> None:
    with pytest.raises(RefusedError, match=r"no answer from http://127\.0\.0\.1") as caught:
        await told(f"http://127.0.0.1:{reserved_port()}", "--token", TOKEN)
    assert caught.value.exit_code == 4
