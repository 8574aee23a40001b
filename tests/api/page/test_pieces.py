"""The positions at which a group's texts continue when a viewer reconnects."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from openseer_api.http.auth import BearerAuth
from openseer_api.page import group_views, routes
from openseer_api.page.app import page_app
from openseer_api.page.feed import JobFeed
from openseer_api.page.group_views import Pieces
from openseer_core.errors import StoreUnavailableError
from openseer_core.ids import INITIAL_VERSION, GroupId, RequestId
from openseer_core.queue.messages import RequestRecord
from openseer_driver.recorded_job import recorded_job
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunRecord
from openseer_local.page.ended_run import EndedRun
from openseer_store.memory import MemoryStore
from tests.api.page.watching import Viewer, viewer
from tests.api.served import TOKEN, Served
from tests.local.page.written import SPEC, result_line
from tests.store.builders import ANN, finish, group, query

LENGTH = 1000
GROUP = "batches/0/group?name=g"


class Reader:
    """Assembles the pieces of streams as the page does."""

    def __init__(self) -> None:
        self.place = ""
        self.tokens: dict[int, list[int]] = {}
        self.length: dict[int, int] = {}
        self.starts: list[int] = []

    @property
    def is_whole(self) -> bool:
        return bool(self.length) and all(len(self.tokens[index]) >= size for index, size in self.length.items())

    async def stream(self, http: httpx.AsyncClient, path: str) -> None:
        """Reads one stream to its end."""
        headers = {"Last-Event-ID": self.place} if self.place else {}
        answer = await http.get(f"/page/api/{path}", headers=headers)
        for line in answer.text.splitlines():
            if line.startswith("id: "):
                self.place = line.removeprefix("id: ")
            elif line.startswith("data: "):
                self.take(json.loads(line.removeprefix("data: ")))

    def take(self, view: dict[str, Any]) -> None:
        for piece in view["responses"]:
            known = self.tokens.setdefault(piece["index"], [])
            assert piece["start"] <= len(known), "tokens are missing"
            known[piece["start"] :] = piece["tokens"]
            self.length[piece["index"]] = piece["length"]
            self.starts.append(piece["start"])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes streams of one view with few tokens."""
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.0001)
    monkeypatch.setattr(routes, "VIEW_SECONDS", 0.001)
    monkeypatch.setattr(group_views, "MOST_TOKENS", LENGTH // 2)


@pytest.mark.usefixtures("short")
async def test_a_long_response_of_an_ended_run_is_whole_after_several_streams(tmp_path: Path) -> None:
    folder, tokens = RunFolder(tmp_path), tuple(range(LENGTH))
    folder.write_run(RunRecord("seen", "", {"spec": SPEC}, "0", "complete"))
    folder.results_file.write_text(result_line(index=0, tokens=tokens) + result_line(index=1, tokens=tokens))
    transport = httpx.ASGITransport(
        page_app(EndedRun(folder, recorded_job(folder, folder.read_run())[0]), BearerAuth(TOKEN))
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as http:
        assert await Viewer(http).login(TOKEN) == 204
        reader = Reader()
        for _ in range(10):
            await reader.stream(http, f"jobs/default/seen/{GROUP}")
        assert reader.is_whole
        assert reader.tokens == {0: list(tokens), 1: list(tokens)}
        assert reader.starts.count(0) == 2


@pytest.mark.usefixtures("short")
async def test_a_live_group_continues_where_the_last_stream_ended() -> None:
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open(sampling={"maxTokens": LENGTH, "minTokens": LENGTH})
        await served.upload(batch, [{"id": "g", "prompt_token_ids": [1]}], seal=True)
        entries = [one for one in await served.until_complete(batch) if one["kind"] == "result"]
        reader = Reader()
        for _ in range(60):
            await reader.stream(person.http, f"jobs/default/served/{GROUP.replace('0', str(batch))}")
        assert reader.tokens == {one["index"]: one["token_ids"] for one in entries}
        assert reader.starts.count(0) == len(entries)


class FailingStore(MemoryStore):
    """A store that raises an error for the last response of a group while `fails` is set."""

    fails = False

    async def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        if self.fails and request.index:
            raise StoreUnavailableError("the store is away")
        return await super().record(request, start, most)


async def test_a_view_that_fails_leaves_no_gap_in_the_next_one() -> None:
    store = FailingStore()
    async with Served(store=store) as served:
        batch = await served.open()
        await store.submit([group("g", 2, batch=batch, version=INITIAL_VERSION)])
        await store.complete(
            ANN, [finish(claim, 5) for claim in await store.claim(ANN, query(version=INITIAL_VERSION))]
        )
        views = JobFeed(served.context).group_views(GroupId(batch, "g"), None)
        store.fails = True
        with pytest.raises(StoreUnavailableError):
            await views.view()
        store.fails = False
        reader = Reader()
        reader.take(json.loads(await views.view()))
        assert reader.tokens == {0: list(range(5)), 1: list(range(5))}


@pytest.mark.parametrize("told", ["", "7.5 0:10", "nonsense", "2.5 0:-1", "2.5 0:1;", "2.5 " + "9" * 5000])
def test_a_position_of_another_group_starts_from_the_beginning(told: str) -> None:
    assert Pieces(2.5, told).start(0, 100) == 0


def test_a_position_is_never_past_the_end_of_a_response() -> None:
    pieces = Pieces(2.5, "2.5 0:10 3:70")
    assert [pieces.start(0, 100), pieces.start(3, 100), pieces.start(3, 20), pieces.start(1, 5)] == [10, 70, 20, 0]


def test_space_left_by_complete_responses_is_used_by_the_others() -> None:
    pieces = Pieces(2.5, "2.5 0:10 1:10")
    assert pieces.share({0: 10, 1: 10, 2: 900, 3: 900}) == group_views.MOST_TOKENS // 2
    assert pieces.share({}) == group_views.MOST_TOKENS
