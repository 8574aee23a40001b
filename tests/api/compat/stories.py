"""Shared code of tests of the compatible routes: clients, groups in the store, waits."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai

from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.tokens import pack_tokens
from openseer_worker.scripted.text import scripted_tokens
from tests.api.served import TOKEN, Served, serving_job

PROMPT = [5, 6, 7]


def long_job(length: int = 30_000) -> RolloutJob:
    """A job with responses of that length; at two milliseconds per token they run for a minute."""
    return serving_job(sampling={"maxTokens": length, "minTokens": length})


@asynccontextmanager
async def client_of(server: Served) -> AsyncGenerator[openai.AsyncOpenAI]:
    """The stock OpenAI client."""
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0)
    try:
        yield client
    finally:
        await client.close()


def whole(group: str, index: int, tokens: list[int]) -> None:
    """Whether the tokens are those of the scripted engine for this request, from the first on."""
    assert tokens
    assert pack_tokens(tokens) == scripted_tokens(group, index, 0, len(tokens))


async def groups(server: Served, batch: int = 1) -> dict[str, int]:
    """Sizes of a batch's groups by name."""
    found = await server.store.group_names(batch, 0, 100)
    return {name: (await server.store.group_view(GroupId(batch, name))).size for name in found}


async def post(server: Served, path: str, body: Any = None, *, status: int = 200, **options: Any) -> Any:
    """One call at the root; its answer as JSON."""
    answer = await server.http.post(path, json=body, **options)
    assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


async def get(server: Served, path: str, *, status: int = 200) -> Any:
    """One call at the root; its answer as JSON, or text."""
    answer = await server.http.get(path)
    assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
    return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text


async def unfinished(server: Served) -> int:
    """Number of unfinished requests of all batches."""
    return sum(record.progress.requests - record.progress.closed for record in await server.store.batches())


async def running(server: Served, count: int = 1) -> None:
    """Waits until `count` requests are leased and some have tokens."""

    async def some() -> bool:
        tokens = sum(record.progress.tokens for record in await server.store.batches())
        return (await server.store.load()).running >= count and tokens > 0

    await until(some)


async def all_ended(server: Served) -> None:
    """Waits until no request is unfinished."""

    async def none() -> bool:
        return not await unfinished(server)

    await until(none)


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 120.0) -> None:
    """Waits until `what` is true; fails after `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not await what():
        assert loop.time() < end
        await asyncio.sleep(0.02)
