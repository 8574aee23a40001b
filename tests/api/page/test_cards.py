"""The cards of all jobs: a job whose store is silent or broken keeps its card and affects no other."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from openseer_api.app import create_app
from openseer_api.http.auth import Access, Authenticator, AuthUnavailable, BearerAuth, Forbidden
from openseer_api.job.context import JobContext, UnopenedJob
from openseer_api.page import cards, routes
from openseer_core.errors import StoreUnavailableError
from openseer_core.queue.batch import QueueLoad
from openseer_store.memory import MemoryStore
from tests.api.page.watching import Viewer
from tests.api.served import TOKEN, serving_job


class Away(MemoryStore):
    async def load(self) -> QueueLoad:
        raise StoreUnavailableError("redis at there gave no answer for 30 s")


class Hanging(MemoryStore):
    async def load(self) -> QueueLoad:
        await asyncio.Event().wait()
        raise AssertionError


class Defective(MemoryStore):
    async def load(self) -> QueueLoad:
        raise ZeroDivisionError


STORES = {"away": Away, "broken": Defective, "hangs": Hanging, "sound": MemoryStore}


class Jobs:
    """One job per kind of store, and one that could not be opened."""

    def __init__(self) -> None:
        self.contexts = [JobContext(serving_job(name), store()) for name, store in STORES.items()]

    async def find(self, namespace: str, name: str) -> JobContext | None:
        return next((job for job in self.contexts if job.job.name == name), None)

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        return await self.find(namespace, name)

    def open_jobs(self) -> list[JobContext]:
        return self.contexts

    def unopened(self) -> list[UnopenedJob]:
        return [UnopenedJob("default", "closed", "serve", "redis at nowhere gave no answer")]


@pytest.fixture(autouse=True)
def _one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams end after their first view: this transport gives an answer once it is whole."""
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.01)
    monkeypatch.setattr(cards, "CARD_SECONDS", 0.3)


@asynccontextmanager
async def person(auth: Authenticator) -> AsyncGenerator[Viewer]:
    transport = httpx.ASGITransport(create_app(Jobs(), auth, many=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        found = Viewer(http)
        assert await found.login(TOKEN) == 204
        yield found


async def seen(auth: Authenticator | None = None) -> dict[str, dict[str, Any]]:
    async with person(auth or BearerAuth(TOKEN)) as viewer:
        view = await viewer.first("/jobs")
        assert view["left_out"] == 0
        return {card["name"]: card for card in view["jobs"]}


async def test_each_job_has_a_card_in_any_state_of_its_store() -> None:
    found = await seen()
    assert list(found) == ["away", "broken", "closed", "hangs", "sound"]
    assert found["sound"]["state"] == "waiting"
    assert {name for name, card in found.items() if card["state"] == "unknown"} == set(found) - {"sound"}


async def test_a_card_without_data_has_the_reason() -> None:
    found = await seen()
    assert found["away"]["reason"] == "the store does not answer: redis at there gave no answer for 30 s"
    assert found["hangs"]["reason"] == "the store does not answer: no data within 0.3 s"
    assert found["closed"]["reason"] == "redis at nowhere gave no answer"


async def test_an_internal_error_is_logged_and_keeps_its_card(caplog: pytest.LogCaptureFixture) -> None:
    found = await seen()
    assert found["broken"]["reason"] == "a defect of openseer; see the log of this server"
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.message == "default/broken: no card for the page"


class Rights(BearerAuth):
    """Rights to all jobs but some; `down`: the check of rights fails."""

    def __init__(self, *refused: str, down: bool = False) -> None:
        super().__init__(TOKEN)
        self._refused, self._down = refused, down

    async def check(self, token: str | None, namespace: str, job: str, access: Access) -> None:
        if job in self._refused:
            raise Forbidden("no")
        if self._down:
            raise AuthUnavailable("what this token may do cannot be asked just now: the API server is away")


async def test_a_job_that_may_not_be_read_has_no_card_even_if_it_is_broken() -> None:
    assert list(await seen(Rights("broken", "closed", "hangs"))) == ["away", "sound"]


async def test_the_stream_reports_failed_right_checks_and_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.3)
    monkeypatch.setattr(routes, "JOBS_SECONDS", 0.1)
    async with person(Rights(down=True)) as viewer:
        events = [event async for event in viewer.views("/jobs")]
    assert len(events) > 1
    assert {kind for kind, _ in events} == {"problem"}
    assert events[0][1]["status"] == 503
    assert "cannot be asked just now" in events[0][1]["detail"]


async def test_rights_of_all_jobs_are_checked_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    met = asyncio.Barrier(len(STORES) + 1)

    class Slow(Rights):
        async def check(self, token: str | None, namespace: str, job: str, access: Access) -> None:
            async with met:
                return

    assert len(await seen(Slow())) == len(STORES) + 1
