"""Answers with many log-probabilities: while one is written, other calls are answered."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from openseer_api.compat.openai import rendering
from openseer_api.compat.sglang import generate
from openseer_api.routes import results
from tests.api.compat.stories import PROMPT, get, post
from tests.api.served import Served, prompts, served, serving_job

LONG: dict[str, Any] = {"maxTokens": 400, "minTokens": 400}
WAIT_SECONDS = 60


class Held:
    """A function that waits at its begin until `goes_on` is set."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.begun.set()
        assert self.goes_on.wait(WAIT_SECONDS), "no other call was answered meanwhile"
        return self._function(*arguments, **named)


async def other_calls_are_answered(server: Served, held: Held, call: asyncio.Task[Any]) -> Any:
    """Makes another call while `call` waits in `held`, then returns the result of `call`."""
    await asyncio.to_thread(held.begun.wait, WAIT_SECONDS)
    await get(server, "/health")
    held.goes_on.set()
    return await call


@pytest.mark.parametrize(
    ("module", "name", "path", "body"),
    [
        (rendering, "_lists", "/v1/completions", {"prompt": PROMPT, "logprobs": 20}),
        (
            rendering,
            "contents",
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 20},
        ),
        (
            rendering,
            "entries_of",
            "/inference/v1/generate",
            {"token_ids": PROMPT, "sampling_params": {"logprobs": 20}},
        ),
        (generate, "_tops", "/generate", {"input_ids": PROMPT, "return_logprob": True, "top_logprobs_num": 20}),
    ],
)
async def test_a_long_answer_blocks_no_other_call(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, path: str, body: dict[str, Any]
) -> None:
    held = Held(getattr(module, name))
    monkeypatch.setattr(module, name, held)
    async with served(job=serving_job(sampling=LONG)) as server:
        answer = await other_calls_are_answered(server, held, asyncio.create_task(post(server, path, body)))
        assert answer


async def test_a_long_result_blocks_no_other_call(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(results.render_entry)
    monkeypatch.setattr(results, "render_entry", held)
    async with served(job=serving_job(sampling=LONG | {"topLogprobs": 20})) as server:
        batch = await server.open(group_size=1)
        await server.upload(batch, prompts(1), seal=True)
        call = asyncio.create_task(server.until_complete(batch))
        result, _ = await other_calls_are_answered(server, held, call)
        assert {len(place) for place in result["top_logprobs"]} == {20}
