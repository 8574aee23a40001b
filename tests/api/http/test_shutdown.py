"""A stopping process answers waiting calls with 503 and a time to retry."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from openseer_api.http.shutdown import AskAgain

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/v1/batches/1/results", "headers": []}


async def cut_off(*, begun: bool) -> list[Message]:
    """The answer of a call that is cancelled while it waits; `begun`: after the head of its answer."""
    sent: list[Message] = []
    waiting = asyncio.Event()

    async def waits(_scope: Scope, _receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    call = asyncio.create_task(AskAgain(waits)(SCOPE, receive, send))
    await waiting.wait()
    call.cancel("the server stops")
    try:
        await call
    except asyncio.CancelledError:
        sent.append({"type": "broken off"})
    return sent


async def test_a_waiting_call_is_answered_503_with_retry_after() -> None:
    head, body = await cut_off(begun=False)
    assert head["status"] == 503
    assert (b"retry-after", b"1") in head["headers"]
    assert b"repeat the call" in body["body"]


async def test_a_stream_that_has_begun_is_aborted() -> None:
    assert [message["type"] for message in await cut_off(begun=True)] == ["http.response.start", "broken off"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_scopes_other_than_http_get_no_answer(kind: str) -> None:
    async def cancelled(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise asyncio.CancelledError

    async def nothing() -> Message:
        return {}

    async def refused(_message: Message) -> None:
        raise AssertionError

    with pytest.raises(asyncio.CancelledError):
        await AskAgain(cancelled)({"type": kind}, nothing, refused)
