"""Access control: every route requires a token, and a token of one job admits no calls of another."""

import base64
import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from openseer_api.app import create_app
from openseer_api.http.auth import Access, BearerAuth, Forbidden, Unauthenticated
from openseer_api.job.context import JobContext, UnopenedJob
from openseer_core.manifest.job import RolloutJob
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, Served, serving_job

OPEN = {"/healthz", "/readyz"}
HEALTH = {"/health", "/ping", "/liveness"}
"""Paths that need no token."""
VALUES = {"namespace": "team-b", "job": "b", "batch": "1", "group": "g0", "index": "0"}


class TwoTenants:
    """Tokens that are the names of their jobs."""

    async def check(self, token: str | None, namespace: str, job: str, access: Access) -> None:
        if token is None:
            raise Unauthenticated("a token is needed")
        if token != f"{namespace}/{job}":
            raise Forbidden("this token may not use this job")

    async def identify(self, token: str | None) -> None:
        if not (token or "").startswith("team-"):
            raise Unauthenticated("a token is needed")


def job_of_team(name: str) -> RolloutJob:
    job = serving_job(name)
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"namespace": f"team-{name}"})})


class TwoJobs:
    """Jobs a and b of two teams."""

    def __init__(self) -> None:
        self.contexts = {(f"team-{name}", name): JobContext(job_of_team(name), MemoryStore()) for name in ("a", "b")}

    async def find(self, namespace: str, name: str) -> JobContext | None:
        return self.contexts.get((namespace, name))

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        return await self.find(namespace, name)

    def open_jobs(self) -> list[JobContext]:
        return list(self.contexts.values())

    def unopened(self) -> list[UnopenedJob]:
        return []


def calls(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path, with job b's names and numbers in it; the page has tests of its own."""
    routes = [route for route in app.routes if isinstance(route, APIRoute) and not route.path.startswith("/page")]
    assert len(routes) > 20
    for route in routes:
        path = re.sub(r"\{(\w+)[^}]*\}", lambda name: VALUES.get(name[1], "x"), route.path)
        for method in sorted(route.methods - {"HEAD"}):
            yield method, path


async def test_every_route_but_health_requires_a_token() -> None:
    async with Served() as server, server.client(None) as nobody, server.client("wrong") as stranger:
        for method, path in calls(server.app):
            answer = await nobody.request(method, path)
            assert answer.status_code == (200 if path in OPEN | HEALTH else 401), (method, path, answer.text)
            if path not in OPEN | HEALTH:
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            if path not in OPEN:
                assert (await stranger.request(method, path)).status_code == 401, (method, path)


async def test_a_token_of_one_job_admits_no_route_of_another() -> None:
    app = create_app(TwoJobs(), TwoTenants(), many=True)
    transport = httpx.ASGITransport(app)
    other = {"Authorization": "Bearer team-a/a"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for method, path in calls(app):
            if path in OPEN:
                continue
            assert "/jobs/team-b/b/" in path, "a route outside of all jobs"
            answer = await client.request(method, path, headers=other)
            assert answer.status_code == 403, (method, path, answer.text)
            hidden = await client.request(method, path.replace("/team-b/b/", "/team-b/nobody/"), headers=other)
            assert hidden.status_code == 403, "the answer reveals whether a job exists"
            assert hidden.json() == answer.json()


async def test_the_gateway_serves_each_job_to_its_own_token() -> None:
    app = create_app(TwoJobs(), TwoTenants(), many=True)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for name in ("a", "b"):
            headers = {"Authorization": f"Bearer team-{name}/{name}"}
            answer = await client.get(f"/jobs/team-{name}/{name}/v1/job", headers=headers)
            assert answer.json()["name"] == name
        gone = await client.get("/jobs/team-c/c/v1/job", headers={"Authorization": "Bearer team-c/c"})
        assert gone.status_code == 404
        odd = await client.get("/jobs/Team%20C/c/v1/job", headers={"Authorization": "Bearer Team C/c"})
        assert odd.status_code == 404


async def test_health_without_a_token_describes_the_server_and_no_job() -> None:
    ready = True
    app = create_app(TwoJobs(), TwoTenants(), many=True, ready=lambda: ready)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        for path in sorted(HEALTH):
            answers = [await client.get(f"/jobs/{job}{path}") for job in ("team-a/a", "team-a/nobody", "No/Name")]
            assert {(answer.status_code, answer.text) for answer in answers} == {(200, "ok\n")}
        ready = False
        assert (await client.get("/jobs/team-a/a/health")).status_code == 503
        assert (await client.get("/jobs/team-a/a/health_generate")).status_code == 401


@pytest.mark.parametrize("token", [TOKEN + "x", "", TOKEN.upper()])
async def test_only_the_whole_token_counts(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await BearerAuth(TOKEN).check(token, "", "", "read")


async def test_a_url_may_carry_the_token_for_clients_without_headers() -> None:
    async with Served() as server:
        address = server.url.replace("http://", f"http://trainer:{TOKEN}@")
        async with httpx.AsyncClient(base_url=address, timeout=120.0) as client:
            assert (await client.get("/v1/job")).status_code == 200
        for wrong in (f"trainer:{TOKEN}x", f"{TOKEN}:", "no colon"):
            coded = base64.b64encode(wrong.encode()).decode()
            answer = await server.http.get("/v1/job", headers={"Authorization": f"Basic {coded}"})
            assert answer.status_code == 401
        garbage = await server.http.get("/v1/job", headers={"Authorization": "Basic ###"})
        assert garbage.status_code == 401
