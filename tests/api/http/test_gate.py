"""The gate: an unauthorized call is refused before its body is read, and each limit has its own answer."""

import asyncio
import base64
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from openseer_api.app import create_app
from openseer_api.compat import GENERATING
from openseer_api.http import gate
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, serving_job

JSON = {"Content-Type": "application/json"}
HUNG_UP = b"hung up"
PROTOCOLS = ["/generate", "/inference/v1/generate", "/v1/completions", "/update_weights"]


@cache
def application() -> FastAPI:
    return create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN))


def client(app: FastAPI | None = None, token: str = TOKEN) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app or application())
    return httpx.AsyncClient(
        transport=transport, base_url="http://server", headers={"Authorization": f"Bearer {token}"}
    )


async def answer(path: str, body: list[bytes | None], *, token: str = TOKEN, **headers: str) -> tuple[int, int]:
    """Status of a POST, and the number of body pieces that were read. `body`: None stands for a piece that never
    arrives, HUNG_UP for the end of the connection."""
    fields = {"authorization": f"Bearer {token}", "content-type": "application/json", **headers}
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "http_version": "1.1", "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()],
    }  # fmt: skip
    asked, statuses = 0, list[int]()

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        piece = body[asked - 1]
        if piece == HUNG_UP:
            return {"type": "http.disconnect"}
        if piece is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": asked < len(body)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await application()(scope, receive, send)
    return statuses[0], asked


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/batches/1/groups", "/generate", "/nothing/here"])
async def test_no_body_is_read_before_the_token_is_checked(path: str) -> None:
    assert await answer(path, [b"{}"], token="wrong") == (401, 0)


async def test_a_body_with_too_large_a_content_length_is_refused_unread() -> None:
    assert await answer("/v1/batches", [b"{}"], content_length=str(gate.JSON_BYTES + 1)) == (413, 0)


async def test_reading_stops_when_a_body_exceeds_the_limit() -> None:
    pieces: list[bytes | None] = [b" " * 2**20] * 9
    assert await answer("/v1/batches", pieces) == (413, 5)


@pytest.mark.parametrize("path", sorted(GENERATING))
async def test_routes_that_generate_take_large_bodies(path: str) -> None:
    async with client() as caller:
        large = await caller.post(path, content=b" " * gate.JSON_BYTES + b"[", headers=JSON)
    assert large.status_code == 400
    assert "not valid JSON" in large.json()["error"]["message"]
    assert await answer(path, [b""], content_length=str(gate.GENERATING_BYTES + 1)) == (413, 0)


async def test_a_stalled_body_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STALL_SECONDS", 0.01)
    assert await answer("/v1/batches", [b"{", None]) == (408, 2)


async def test_the_sum_of_open_bodies_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "ALL_BYTES", 2**20)
    assert (await answer("/generate", [b" " * 2**20, b" ", b" "]))[0] == 429
    assert (await answer("/v1/batches", [b"{}"]))[0] == 201


@pytest.mark.parametrize("path", ["/v1/batches", "/generate", "/v1/batches/1/groups"])
async def test_a_disconnect_within_a_body_is_no_server_error(path: str) -> None:
    async with client() as caller:
        await caller.post("/v1/batches", json={})
    assert (await answer(path, [b"{", HUNG_UP]))[0] == 499


async def upload(kind: str, *body: bytes) -> int:
    """Status of an upload in these pieces to a new batch."""
    async with client() as caller:
        batch = (await caller.post("/v1/batches", json={})).json()["id"]
    return (await answer(f"/v1/batches/{batch}/groups", list(body), **{"content-type": kind}))[0]


async def test_an_upload_counts_with_its_parsed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "ALL_BYTES", 2**16)
    line = b'{"id": "g%d", "prompt_token_ids": [5]}' + b" " * 2**15
    lines = [line % number + b"\n" for number in range(9)]
    assert await upload("application/x-ndjson", *lines) == 200
    assert await upload("application/x-ndjson", *[b" " * 2**15] * 3) == 429
    assert await upload("application/json", b'{"groups": [', line % 0, b"]}") == 200
    assert await upload("application/json", b'{"groups": [', line % 0, b",", line % 1, b"]}") == 429
    assert (await answer("/v1/batches", [b"{}"]))[0] == 201


async def test_long_header_fields_are_refused() -> None:
    async with client() as caller:
        assert (await caller.get("/v1/job", headers={"X-Long": "x" * gate.HEAD_BYTES})).status_code == 431


@pytest.mark.parametrize("path", ["/health", "/ping", "/liveness"])
async def test_health_has_the_protocols_errors_without_a_token_too(path: str) -> None:
    async with client() as caller:
        del caller.headers["Authorization"]
        refused = await caller.post(path, json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, 405)


@pytest.mark.parametrize("value", [b"Basic \xff", b"Basic gA==", b"Bearer \xff\xfe", b"Basic", b"\xff", b""])
async def test_a_token_that_is_not_text_is_refused(value: bytes) -> None:
    async with client() as caller:
        for path in ("/v1/job", "/health"):
            refused = await caller.get(path, headers={b"Authorization": value})
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/batches", *PROTOCOLS])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"method": "PATCH"}, 405),
        ({"headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"headers": JSON | {"Content-Encoding": "gzip"}}, 415),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"headers": {}}, 415),
        ({"headers": JSON | {"Content-Length": str(gate.GENERATING_BYTES + 1)}}, 413),
        ({"content": b"{"}, 422),
        ({"content": b"\xff"}, 422),
        ({"content": b"[" * 100_000}, 422),
        ({"content": b"[]"}, 422),
    ],
)
async def test_errors_have_the_shape_of_their_protocol(path: str, change: dict[str, Any], status: int) -> None:
    async with client() as caller:
        call: dict[str, Any] = {"method": "POST", "headers": JSON, "content": b"{}"} | change
        refused = await caller.request(url=path, **call)
    told = refused.json()
    if path == "/v1/batches":
        assert refused.status_code == told["status"] == status
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert told["detail"]
    else:
        assert refused.status_code == told["error"]["code"] == (400 if status == 422 else status)
        assert told["error"]["message"]


async def test_unknown_paths_are_answered_in_the_protocols_form() -> None:
    async with client() as caller:
        for path in ("/nothing", "/v1/embeddings", "/v1/models/x", "/v1/batches/1/nothing"):
            assert (await caller.post(path, json={})).json()["error"]["code"] == 404
        for path in ("/v1/batches/999", "/v1/batches/999/groups/g"):
            assert (await caller.get(path)).json()["status"] == 404


async def test_an_internal_error_has_the_protocols_form(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(JobContext, "snapshot", broken)
    transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as caller:
        failed = await caller.get("/model_info", headers={"Authorization": f"Bearer {TOKEN}"})
    assert failed.status_code == failed.json()["error"]["code"] == 500
    assert "ZeroDivision" not in failed.text


async def test_the_gateway_answers_paths_without_a_job() -> None:
    app = create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN), many=True)
    async with client(app) as caller:
        assert (await caller.get("/healthz")).status_code == 200
        for path in ("/v1/job", "/jobs/a", "/jobs//b/v1/job", "/"):
            assert (await caller.get(path)).status_code == 404
        assert (await caller.get("/jobs/a/b/v1/job")).json()["name"] == "served"


async def test_a_password_may_carry_the_token() -> None:
    coded = base64.b64encode(f"any:{TOKEN}".encode()).decode()
    async with client() as caller:
        assert (await caller.get("/v1/job", headers={"Authorization": f"Basic {coded}"})).status_code == 200
