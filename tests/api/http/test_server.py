"""The web server's limits, over real sockets: long heads, connections that stall, too many of them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from openseer_api.http import server
from openseer_api.http.gate import HEAD_BYTES
from openseer_api.http.server import WebServer
from tests.api.served import Served

AGES = 3600.0
"""Seconds that no test lasts."""
ANSWER_BYTES = 32 * 2**20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without reading a body; /long with many bytes, /told… with the requested URL."""
    if scope["type"] == "http":
        body = b"x" * ANSWER_BYTES if scope["path"] == "/long" else b"ok"
        if scope["path"].startswith("/told"):
            body = f"{scope['path']} of {Request(scope).url}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def web_server() -> AsyncGenerator[WebServer]:
    """A server with that application."""
    begun = asyncio.Event()
    web = WebServer(plain, finish_seconds=1, on_start=begun.set)
    task = asyncio.create_task(web.serve())
    await begun.wait()
    try:
        yield web
    finally:
        web.should_exit = web.force_exit = True
        await task


def port_of(web: WebServer) -> int:
    return int(web.servers[0].sockets[0].getsockname()[1])


@asynccontextmanager
async def serving() -> AsyncGenerator[int]:
    """The port of such a server."""
    async with web_server() as web:
        yield port_of(web)


@asynccontextmanager
async def connected(port: int, text: bytes = b"") -> AsyncGenerator[Streams]:
    """A connection on which `text` was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def rest(streams: Streams) -> bytes:
    """All bytes until the server closes the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await streams[0].read(2**16):
            found += piece
    return found


def head(path: str = "/", fields: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/told/b", "/told/b of http://a/told/b"),
        ("http://other:81/told/b%2Bc?d=e", "/told/b+c of http://other:81/told/b+c?d=e"),
        ("HTTP://any:token@[::1]/told", "/told of http://[::1]/told"),
        ("http://other", "ok"),
        ("http://other?d=/e", "ok"),
    ],
)
async def test_a_request_line_with_a_whole_url_is_served_by_its_path(target: str, told: str) -> None:
    async with serving() as port, connected(port, head(target, "Connection: close\r\n")) as streams:
        assert f"{told}\r\n" in (await rest(streams)).decode()


async def test_a_head_without_end_is_refused() -> None:
    async with serving() as port, connected(port, b"GET / HTTP/1.1\r\n") as streams:
        for _ in range(HEAD_BYTES // 1000 + 1):
            streams[1].write(b"X-Field: " + b"x" * 1000 + b"\r\n")
        found = await rest(streams)
        assert found.startswith(b"HTTP/1.1 431 ")
        assert b"application/problem+json" in found


async def test_bytes_that_are_not_http_are_refused() -> None:
    async with serving() as port, connected(port, b"\x16\x03\x01 hello\r\n\r\n") as streams:
        assert (await rest(streams)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("text", [b"", b"GET / HTT"])
async def test_a_connection_that_stalls_within_a_head_is_closed(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    async with serving() as port, connected(port, text) as streams:
        assert await rest(streams) == b""


async def test_a_connection_that_stalls_within_a_body_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port, connected(port, head()) as streams:
        await streams[0].readuntil(b"ok")
        monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
        streams[1].write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        assert b"200" in await rest(streams)


async def test_an_idle_connection_between_two_calls_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port, connected(port, head()) as streams:
        await streams[0].readuntil(b"ok")
        monkeypatch.setattr(server, "HEAD_SECONDS", 0.0)
        await asyncio.sleep(0.05)
        streams[1].write(head())
        await streams[0].readuntil(b"ok")


async def test_the_longest_idle_connection_is_closed_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 2)
    async with serving() as port, connected(port) as first, connected(port, head()) as second:
        await second[0].readuntil(b"ok")
        async with connected(port, head()) as third:
            await third[0].readuntil(b"ok")
            assert await rest(first) == b""
            second[1].write(head())
            await second[0].readuntil(b"ok")


async def test_connections_leave_half_of_the_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(_resource: int) -> tuple[int, int]:
        return 5, 5

    monkeypatch.setattr(server.resource, "getrlimit", few)
    async with serving() as port, connected(port) as first, connected(port, head()) as second:
        await second[0].readuntil(b"ok")
        async with connected(port, head()) as third:
            await third[0].readuntil(b"ok")
            assert await rest(first) == b""


async def test_a_client_that_reads_no_answer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TAKE_SECONDS", 0.05)
    async with web_server() as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(web), limit=2**16)
        transport = writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        writer.write(head("/long"))
        await reader.readuntil(b"HTTP/1.1 200")
        transport.pause_reading()
        while web.server_state.connections:
            await asyncio.sleep(0.01)
        transport.resume_reading()
        assert len(await rest((reader, writer))) < ANSWER_BYTES
        writer.close()


async def test_two_hundred_stalled_unauthorized_bodies_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", AGES)
    post = b"POST /v1/batches HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n"
    async with Served() as served, contextlib.AsyncExitStack() as stack:
        port, piece = int(served.url.rpartition(":")[2]), b" " * 2**20
        before = resident()
        for _ in range(200):
            streams = await stack.enter_async_context(connected(port, post))
            streams[1].write(piece)
            await streams[1].drain()
            assert b"401" in await streams[0].readuntil(b"\r\n")
        assert resident() - before < 50 * 2**20
        assert (await served.http.get("/v1/job")).status_code == 200


def resident() -> int:
    """Resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
