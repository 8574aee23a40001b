"""Chat messages have the same meaning in prompt files, groups and chat requests."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from openseer_api.compat.openai.wire import ChatRequest
from openseer_core.errors import PromptsError
from openseer_core.manifest.prompts import PromptRow, PromptRules, parse_prompts
from openseer_core.wire.batches import Group

TURN = {"role": "user", "content": "1 + 1?"}


def of_file(messages: Any) -> Any:
    row = PromptRow(1, "a.jsonl line 1", json.dumps({"messages": messages}).encode())
    [prompt] = parse_prompts([row], "a.jsonl", PromptRules(1))
    assert prompt.messages is not None
    return list(prompt.messages)


def of_group(messages: Any) -> Any:
    return Group.model_validate({"id": "a", "messages": messages}).messages


def of_chat(messages: Any) -> Any:
    return ChatRequest.model_validate({"messages": messages}).messages


WAYS = (of_file, of_group, of_chat)


@pytest.mark.parametrize(
    ("message", "place", "told"),
    [
        ({"role": "user"}, "content", "found null, allowed: text"),
        ({"role": "user", "content": None}, "content", "found null, allowed: text"),
        ({"role": "user", "content": []}, "content", "found [], allowed: text"),
        ({"role": "user", "contents": "1 + 1?"}, "contents", 'unknown field; did you mean "content"?'),
        ({**TURN, "mood": "glad"}, "mood", "unknown field, known: role, content"),
        ({**TURN, "tool_calls": [{"id": "1"}]}, "tool_calls", "give a chat with more than that as token ids"),
        ({**TURN, "function_call": {"name": "add"}}, "function_call", "as token ids"),
        ({**TURN, "reasoning_content": "hm"}, "reasoning_content", "as token ids"),
        ({"role": "tool", "content": "4", "tool_call_id": "1"}, "tool_call_id", "as token ids"),
        ({"role": 5, "content": "a"}, "role", "found 5, allowed: text, not empty"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "content", "found {"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "content", "found {"),
    ],
)
def test_fields_that_a_prompt_would_lose_are_refused_in_every_form(message: Any, place: str, told: str) -> None:
    with pytest.raises(PromptsError) as of_line:
        of_file([TURN, message])
    [problem] = of_line.value.problems
    assert problem.startswith(f"a.jsonl line 1: messages[1].{place}")
    assert told in problem
    for way in (of_group, of_chat):
        with pytest.raises(ValidationError) as caught:
            way([TURN, message])
        [error] = caught.value.errors()
        assert error["loc"][:3] == ("messages", 1, place)
        assert told in error["msg"]


@pytest.mark.parametrize("way", WAYS)
def test_parts_of_text_are_lines_of_one_text_as_in_vllm(way: Any) -> None:
    parts = [{"type": "text", "text": "1 + 1?"}, {"type": "text", "text": "Be brief."}]
    assert way([{"role": "user", "content": parts[:1]}]) == [TURN]
    assert way([{"role": "user", "content": parts}]) == [{"role": "user", "content": "1 + 1?\nBe brief."}]


@pytest.mark.parametrize("way", WAYS)
def test_empty_optional_fields_of_a_message_are_dropped(way: Any) -> None:
    assert way([{**TURN, "tool_calls": [], "name": None}]) == [TURN]
    assert way([{**TURN, "content": ""}]) == [{**TURN, "content": ""}]
