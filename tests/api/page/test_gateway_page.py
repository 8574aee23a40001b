"""The page of a gateway: many jobs, each shown only to viewers with the right to read it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest

from openseer_api.app import create_app
from openseer_api.page import routes
from tests.api.page.watching import Viewer
from tests.api.routes.test_access import TwoJobs, TwoTenants


@pytest.fixture(autouse=True)
def _one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams end after their first view: this transport gives an answer once it is whole."""
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.01)


@asynccontextmanager
async def person(token: str) -> AsyncGenerator[Viewer]:
    transport = httpx.ASGITransport(create_app(TwoJobs(), TwoTenants(), many=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        found = Viewer(http)
        assert await found.login(token) == 204
        yield found


async def test_a_viewer_sees_the_jobs_that_the_token_may_read() -> None:
    async with person("team-b/b") as viewer:
        view = await viewer.first("/jobs")
        assert [(card["namespace"], card["name"]) for card in view["jobs"]] == [("team-b", "b")]
        assert view["left_out"] == 0


async def test_a_viewer_without_the_right_learns_nothing_of_a_job() -> None:
    async with person("team-a/a") as viewer:
        assert await viewer.status("/jobs/team-a/a") == 200
        assert await viewer.status("/jobs/team-b/b") == 403
        assert await viewer.status("/jobs/team-b/nobody") == 403
        assert await viewer.status("/jobs/team-b/b/batches/1") == 403
        assert await viewer.status("/jobs/team-b/b/batches/1/group?name=g") == 403


@pytest.mark.parametrize(
    "path", ["/jobs/team-b/b/batches/1%0A", "/jobs/team-b/b%0A", "/jobs/team-b%2Fb", "/jobs//team-b/b"]
)
async def test_no_spelling_of_a_path_bypasses_the_right(path: str) -> None:
    async with person("team-a/a") as viewer:
        assert await viewer.status(path) in (403, 404)


async def test_errors_of_the_page_are_problem_documents() -> None:
    async with person("team-a/a") as viewer:
        answer = await viewer.http.get("/page/api/jobs/team-b/b")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "Forbidden"
