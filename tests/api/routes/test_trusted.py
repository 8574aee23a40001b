"""A trusted machine needs no token for calls of its programs, but for calls that its browser sends for another site."""

import socket

import pytest

from tests.api.served import TOKEN, Served


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "gpu-7:8000", socket.gethostname()])
async def test_programs_of_that_machine_need_no_token(host: str) -> None:
    async with Served(trusted="127.0.0.1") as server, server.client(None) as program:
        assert (await program.get("/v1/job", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://site.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "site.example"},
        {"Host": "site.example:8000", "Origin": "http://site.example:8000"},
        {"Host": "a@127.0.0.1"},
    ],
)
async def test_a_page_of_another_site_needs_a_token_there_too(headers: dict[str, str]) -> None:
    async with Served(trusted="127.0.0.1") as server, server.client(None) as browser:
        for method, path in (("GET", "/v1/job"), ("POST", "/pause"), ("POST", "/v1/release")):
            assert (await browser.request(method, path, headers=headers)).status_code == 401
        right = {**headers, "Authorization": f"Bearer {TOKEN}"}
        assert (await browser.get("/v1/job", headers=right)).status_code == 200


async def test_another_machine_needs_a_token() -> None:
    async with Served(trusted="10.0.0.7") as server, server.client(None) as program:
        assert (await program.get("/v1/job")).status_code == 401
