"""Reading results: pages, long polls, streams, broken connections."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from math import inf, nan
from typing import Any

import httpx
import pytest

from openseer_api.routes import results as routes
from openseer_core.ids import RequestId
from openseer_core.queue.batch import Entry
from openseer_core.queue.messages import RequestRecord, Result
from openseer_core.tokens import pack_logprobs
from openseer_core.wire.results import MAX_WAIT_SECONDS, ResultItem
from openseer_store.memory import MemoryStore
from tests.api.served import LONG, TOKEN, Served, prompts, served, serving_job

LINES = {"Accept": "application/x-ndjson"}
EVENTS = {"Accept": "text/event-stream"}


async def read_lines(server: Served, batch: int, cursor: int = 0, most: int = 10**9) -> list[dict[str, Any]]:
    """Items of a stream; the line is cut after `most`."""
    items: list[dict[str, Any]] = []
    params = {"cursor": cursor}
    async with server.http.stream("GET", f"/v1/batches/{batch}/results", params=params, headers=LINES) as answer:
        async for line in answer.aiter_lines():
            if line:
                items.append(json.loads(line))
            if len(items) >= most:
                break
    return items


async def pieces_of(
    server: Served, batch: int, accept: str, meanwhile: Callable[[], Awaitable[object]], query: str = ""
) -> list[bytes]:
    """Pieces of an answer whose reader runs `meanwhile` between its first piece and the others."""
    pieces: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if piece := message.get("body"):
            pieces.append(piece)
            if len(pieces) == 1:
                await meanwhile()

    headers = [(b"accept", accept.encode()), (b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "GET", "path": f"/v1/batches/{batch}/results", "query_string": query.encode()}
    await server.app(scope | {"headers": headers, "asgi": {"spec_version": "2.4"}}, receive, send)
    return pieces


async def nothing() -> None:
    """A reader that does nothing else."""


def acknowledging(server: Served, batch: int, cursor: int) -> Callable[[], Awaitable[object]]:
    """Acknowledges as another reader."""
    return lambda: server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": cursor})


async def test_a_stream_reports_entries_acknowledged_by_another_reader() -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(80), seal=True)
        last = (await server.until_complete(batch))[-2]["cursor"]
        pieces = await pieces_of(server, batch, LINES["Accept"], acknowledging(server, batch, last))
        items = [json.loads(line) for line in b"".join(pieces).splitlines()]
        assert [item["cursor"] for item in items[:-1]] == list(range(1, 33))
        assert items[-1] == {
            "kind": "error",
            "cursor": 32,
            "status": 409,
            "detail": f"cursor: found 32; entries up to {last} were acknowledged, and are deleted",
        }


async def test_a_stream_of_lines_has_each_result_at_once_and_an_end() -> None:
    async with served() as server:
        batch = await server.open()
        reading = asyncio.create_task(read_lines(server, batch))
        await server.upload(batch, prompts(8))
        await asyncio.sleep(0.3)
        assert not reading.done()
        await server.upload(batch, prompts(12, first=8), seal=True)
        items = await reading
        assert items[-1] == {"kind": "end", "cursor": 60}
        assert [item["cursor"] for item in items[:-1]] == list(range(1, 61))


async def test_a_broken_stream_resumes_without_loss_or_doubles() -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(10), seal=True)
        items: list[dict[str, Any]] = []
        while not items or items[-1]["kind"] != "end":
            items += await read_lines(server, batch, items[-1]["cursor"] if items else 0, most=7)
        assert [item["cursor"] for item in items[:-1]] == list(range(1, 51))


async def test_server_sent_events_resume_from_the_last_one_seen() -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(3), seal=True)
        await server.until_complete(batch)
        headers = EVENTS | {"Last-Event-ID": "4"}
        answer = await server.http.get(f"/v1/batches/{batch}/results", headers=headers)
        events = [event.split("\n") for event in answer.text.strip().split("\n\n")]
        assert [event[0] for event in events] == [*(f"id: {number}" for number in range(5, 16)), "id: 15"]
        assert events[-1][1:] == ["event: end", 'data: {"kind":"end","cursor":15}']


async def test_a_long_poll_ends_with_the_first_entry_or_with_its_time() -> None:
    async with Served() as server:
        batch = await server.open()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        page = await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 0.3})
        assert page == {"items": [], "cursor": 0, "complete": False}
        assert loop.time() - begun > 0.25
        waiting = asyncio.create_task(
            server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": MAX_WAIT_SECONDS, "limit": 1})
        )
        await server.upload(batch, prompts(1, n=1))
        server.start_worker()
        assert len((await asyncio.wait_for(waiting, MAX_WAIT_SECONDS - 5))["items"]) == 1


async def test_a_page_gives_the_same_again_until_it_is_acknowledged() -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(4), seal=True)
        items = await server.until_complete(batch)
        await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": 9})
        again = await server.call("GET", f"/batches/{batch}/results", params={"cursor": 9, "limit": 6})
        assert again["items"] == items[9:15]
        assert not again["complete"]
        gone = await server.call("GET", f"/batches/{batch}/results", params={"cursor": 8}, status=409)
        assert "entries up to 9 were acknowledged" in gone["detail"]
        await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": 21}, status=409)


class CountingStore(MemoryStore):
    """A store that counts reads of results and the event loop's turns since the last one."""

    reads = turns = 0

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        found = await super().results(batch, cursor, limit, wait_seconds)
        self.reads, self.turns = self.reads + 1, 0
        return found


async def test_an_unread_page_holds_one_step_of_it_in_memory() -> None:
    async with served(store=(store := CountingStore())) as server:
        batch = await server.open()
        await server.upload(batch, prompts(60), seal=True)
        items = await server.until_complete(batch)
        before = store.reads

        async def stall() -> None:
            assert store.reads == before + 1

        pieces = await pieces_of(server, batch, "application/json", stall, "limit=200")
        assert store.reads == before + 7
        assert max(map(len, pieces)) < len(b"".join(pieces)) / 2
        page = json.loads(b"".join(pieces))
        assert page == {"items": items[:200], "cursor": 200, "complete": False}


async def test_a_page_whose_next_entries_were_acknowledged_ends_before_them() -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(40), seal=True)
        items = await server.until_complete(batch)
        pieces = await pieces_of(server, batch, "", acknowledging(server, batch, 199), "limit=1000")
        page = json.loads(b"".join(pieces))
        assert page == {"items": items[:32], "cursor": 32, "complete": False}
        await server.call("GET", f"/batches/{batch}/results", params={"cursor": 32}, status=409)


async def test_a_page_of_long_responses_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PAGE_BYTES", 1000)
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(40), seal=True)
        items = await server.until_complete(batch)
        assert len(items) == 200
        page = await server.call("GET", f"/batches/{batch}/results", params={"limit": 1000})
        assert page == {"items": items[:32], "cursor": 32, "complete": False}


async def test_encoding_long_responses_blocks_no_other_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PIECE_BYTES", 1)
    async with served(store=(store := CountingStore())) as server:
        batch = await server.open()
        await server.upload(batch, prompts(8), seal=True)
        await server.until_complete(batch)
        encoding = asyncio.create_task(pieces_of(server, batch, "", nothing))
        turns = 0
        while not encoding.done():
            store.turns += 1
            turns = max(turns, store.turns)
            await asyncio.sleep(0)
        assert len(encoding.result()) == 40 + 1
        assert turns >= routes.STEP - 1


async def test_a_reader_that_disconnects_mid_stream_leaves_the_batch_open() -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(2))
        for _ in range(10):
            try:
                await server.http.get(f"/v1/batches/{batch}/results", headers=LINES, timeout=0.05)
            except httpx.TimeoutException:
                continue
        assert (await server.call("GET", f"/batches/{batch}"))["state"] == "open"


async def test_a_batch_without_groups_is_complete_once_it_is_sealed() -> None:
    async with Served() as server:
        batch = await server.open()
        await server.call("POST", f"/batches/{batch}/seal")
        assert await read_lines(server, batch) == [{"kind": "end", "cursor": 0}]


async def test_the_end_is_returned_after_the_last_entry_was_acknowledged() -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(2), seal=True)
        await server.until_complete(batch)
        await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": 10})
        page = await server.call("GET", f"/batches/{batch}/results", params={"cursor": 10, "wait_seconds": 5})
        assert page == {"items": [], "cursor": 10, "complete": True}
        assert await read_lines(server, batch, 10) == [{"kind": "end", "cursor": 10}]
        await server.call("GET", f"/batches/{batch}/results", params={"cursor": 9}, status=409)


class RestartedStore(MemoryStore):
    """A store in a later epoch."""

    async def base(self) -> int:
        return 4096


async def test_a_cursor_past_the_end_is_accepted_only_from_an_earlier_epoch() -> None:
    for store, cursor, status in (
        (MemoryStore(), 21, 409),
        (RestartedStore(), 4096, 200),
        (RestartedStore(), 4097, 409),
    ):
        async with served(store=store) as server:
            batch = await server.open()
            await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": cursor}, status=status)


async def test_the_likeliest_tokens_are_in_results_that_ask_for_them() -> None:
    async with served(job=serving_job(sampling={"maxTokens": 8, "minTokens": 3})) as server:
        batch = await server.open(group_size=1, sampling={"topLogprobs": 2, "maxTokens": 3})
        await server.upload(batch, prompts(1), seal=True)
        result, _ = await server.until_complete(batch)
        item = ResultItem.model_validate(result)
        assert item.logprobs is not None
        assert item.top_logprobs is not None
        for token, score, top in zip(item.token_ids, item.logprobs, item.top_logprobs, strict=True):
            assert top[0] == (token, score)
            assert [of for of, _ in top] == [token, token + 1]
        request = await server.call("GET", f"/batches/{batch}/groups/g0/requests/0")
        assert request["logprobs"] == item.logprobs
        plain = await server.open(group_size=1)
        await server.upload(plain, prompts(1), seal=True)
        assert (await server.until_complete(plain))[0]["top_logprobs"] is None


class OldStore(MemoryStore):
    """A store with scores that are not finite, as stores of earlier releases may have."""

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        found = await super().results(batch, cursor, limit, wait_seconds)
        return [replace(entry, logprobs=NOT_FINITE) if isinstance(entry, Result) else entry for entry in found]

    async def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        return replace(await super().record(request, start, most), logprobs=NOT_FINITE)


NOT_FINITE = pack_logprobs([-0.5, nan, -inf])


async def test_scores_that_were_not_finite_are_null_and_their_page_is_read() -> None:
    async with served(store=OldStore(), job=serving_job(sampling={"maxTokens": 3, "minTokens": 3})) as server:
        batch = await server.open(group_size=1)
        await server.upload(batch, prompts(1), seal=True)
        result, _ = await server.until_complete(batch)
        assert result["logprobs"] == [-0.5, None, None]
        assert ResultItem.model_validate(result).logprobs == [-0.5, None, None]
        request = await server.call("GET", f"/batches/{batch}/groups/g0/requests/0")
        assert request["logprobs"] == [-0.5, None, None]
        (line, *_) = await read_lines(server, batch)
        assert line == result
