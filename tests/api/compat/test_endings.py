"""Finish reasons of responses, in the form of each protocol's engine, in an answer and in a stream."""

import json
from typing import Any

import pytest

from openseer_core.manifest.prompts import PromptLine
from openseer_core.tokens import unpack_tokens
from openseer_text.reading import Reader
from openseer_text.rendering import USUAL, Rendered, RenderOptions
from openseer_worker.scripted.text import drawn_length, scripted_tokens
from tests.api.compat.stories import PROMPT
from tests.api.served import served

MAX_TOKENS = 40
PARAMS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": PROMPT},
    "/inference/v1/generate": {"token_ids": PROMPT, "output_mode": "text"},
    "/generate": {"input_ids": PROMPT},
}


def tokens_of(name: str) -> list[int]:
    """The response of a group's only request, which the scripted engine ends before `MAX_TOKENS`."""
    length = drawn_length(f"1/{name}", 0, MAX_TOKENS)
    assert length < MAX_TOKENS
    return unpack_tokens(scripted_tokens(f"1/{name}", 0, 0, length))


def text_of(tokens: Any) -> str:
    return "".join(f"{token} " for token in tokens)


class Numbers:
    """A codec whose text is the token ids. `end`: the model's end token."""

    def __init__(self, end: int | None) -> None:
        self.read: Reader | None = Reader(text_of, end=end)

    def render(self, prompt: PromptLine, options: RenderOptions = USUAL) -> Rendered:
        return Rendered(list(prompt.prompt_token_ids or ()))


def body_of(path: str, group: str, stops: list[int], *, stream: bool) -> dict[str, Any]:
    sampling = {"max_tokens": MAX_TOKENS, "stop_token_ids": stops}
    params = sampling if path == "/v1/completions" else {"sampling_params": sampling}
    named = {"custom_params": {"group_id": group}} if path == "/generate" else {}
    params = {"sampling_params": sampling | named} if named else params | {"group_id": group}
    return PARAMS[path] | params | {"stream": stream}


def choice_of(path: str, text: str, *, stream: bool) -> dict[str, Any]:
    """The choice of an answer; for a stream the last choice, with the text of all."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    answers = [json.loads(line) for line in (lines if stream else [text])]
    if path == "/generate":
        return answers[-1]
    choices = [answer["choices"][0] for answer in answers if answer["choices"]]
    return choices[-1] | {"text": "".join(choice["text"] for choice in choices)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PARAMS)
async def test_an_end_token_is_null_to_vllm_and_an_id_to_sglang(
    path: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = [tokens_of(name)[-1] for name in "abcd"]
    cases: dict[str, tuple[int | None, list[int], int | None]] = {
        "a": (None, [], None),
        "b": (last[1], [last[1]], None),
        "c": (7, [], last[2]),
        "d": (None, [last[3]], last[3]),
    }
    async with served() as server:
        for group, (end, stops, reason) in cases.items():

            async def codec(end: int | None = end) -> Numbers:
                return Numbers(end)

            monkeypatch.setattr(server.context, "codec", codec)
            answer = await server.http.post(path, json=body_of(path, group, stops, stream=stream))
            choice, tokens = choice_of(path, answer.text, stream=stream), tokens_of(group)
            assert choice["text"] == text_of(tokens[:-1])
            if path == "/generate":
                assert choice["meta_info"]["finish_reason"] == {"type": "stop", "matched": tokens[-1]}
            else:
                assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", reason)
