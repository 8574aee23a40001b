"""Prompt lines are read, or each wrong line is reported with its number."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.errors import PromptsError
from openseer_core.manifest.prompts import PromptLine, PromptRow, PromptRules, parse_prompts


def read(*lines: bytes, group_size: int = 2, need_lengths: bool = False) -> list[PromptLine]:
    rows = [PromptRow(number, f"prompts.jsonl line {number}", line) for number, line in enumerate(lines, start=1)]
    return list(parse_prompts(rows, "prompts.jsonl", PromptRules(group_size, need_lengths)))


def problems(*lines: bytes, need_lengths: bool = False) -> list[str]:
    with pytest.raises(PromptsError) as caught:
        read(*lines, need_lengths=need_lengths)
    return list(caught.value.problems)


def test_the_three_kinds_of_prompt_are_read_and_blank_lines_ignored() -> None:
    prompts = read(
        b'{"id":"first","prompt":"1 + 1","lengths":[3,4]}\n',
        b"  \n",
        b'{"messages":[{"role":"user","content":"hello"}]}\n',
        b'{"prompt_token_ids":[5,6],"metadata":{"answer":"2"}}',
    )
    assert prompts == [
        PromptLine(id="first", line=1, prompt="1 + 1", lengths=(3, 4)),
        PromptLine(id="line-3", line=3, messages=({"role": "user", "content": "hello"},)),
        PromptLine(id="line-4", line=4, prompt_token_ids=(5, 6), metadata={"answer": "2"}),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"prompt" "a"}', "not valid JSON (Expecting ':' delimiter at column 11, found '\"a\"}')"),
        (b'{"prompt":"\xff"}', "not UTF-8 (byte 0xff at offset 11)"),
        (b'{"prompt":"\\ud800"}', "prompt: not valid text (half of a character, \\ud800)"),
        (b'{"prompt":"a","metadata":{"x":NaN}}', "metadata.x: found NaN, allowed: a number"),
        (b'{"prompt":"a","metadata":{"x":-1e999}}', "metadata.x: found -1e999, allowed: a number that a double holds"),
        (b'{"prompt":"a","metadata":{"x":1,"x":2}}', "metadata.x: found twice, allowed: once"),
        (b'{"prompt":"a","prompt":"b"}', "prompt: found twice, allowed: once"),
        (b"[" * 100_000, "not usable JSON (nested too deeply, allowed: 128 lists and maps within one another)"),
        (b'{"prompt_token_ids":[' + b"9" * 5000 + b"]}", "prompt_token_ids[0]: found 999"),
        (b"[1]", "found a list, allowed: a map with one of prompt"),
        (b'{"promt":"a"}', 'promt: unknown field; did you mean "prompt"?'),
        (b'{"prompt":"a","zzz":1}', "zzz: unknown field, known: id, prompt"),
        (b"{}", "found none, allowed: exactly one of prompt, messages, prompt_token_ids"),
        (b'{"prompt":"a","prompt_token_ids":[1]}', "found prompt and prompt_token_ids, allowed: exactly one"),
        (b'{"prompt":""}', 'prompt: found "", allowed: text, not empty'),
        (b'{"messages":[]}', "messages: found [], allowed: a list of at least one message"),
        (b'{"messages":["a"]}', 'messages[0]: found "a", allowed: a map with role and content'),
        (b'{"messages":[{"role":"user"}]}', "messages[0].content: found null, allowed: text"),
        (b'{"messages":[{"role":"","content":"a"}]}', 'messages[0].role: found "", allowed: text, not empty'),
        (b'{"messages":[{"rol":"user"}]}', 'messages[0].rol: unknown field; did you mean "role"?'),
        (b'{"prompt_token_ids":[1,true]}', "prompt_token_ids[1]: found true, allowed: a whole number from 0"),
        (b'{"prompt_token_ids":[1,-1]}', "prompt_token_ids[1]: found -1, allowed: a whole number from 0"),
        (b'{"prompt_token_ids":"1"}', 'prompt_token_ids: found "1", allowed: a list of whole numbers'),
        (b'{"prompt":"a","id":"a b"}', 'id: found "a b", allowed: 1 to 128 of letters, digits, . _ : -'),
        (b'{"prompt":"a","metadata":1}', "metadata: found 1, allowed: a map"),
        (b'{"prompt":"a","lengths":[1]}', "lengths: found 1 of them, allowed: 2, as groupSize states"),
        (b'{"prompt":"a","lengths":[1,0]}', "lengths[1]: found 0, allowed: a whole number from 1"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number(line: bytes, expected: str) -> None:
    [problem] = problems(b'{"prompt":"a"}', line)
    assert problem.startswith(f"prompts.jsonl line 2: {expected}")


def test_a_surrogate_pair_is_a_character() -> None:
    assert read(b'{"prompt":"\\ud83d\\ude00"}')[0].prompt == "\N{GRINNING FACE}"


def test_a_repeated_id_is_reported_with_both_lines() -> None:
    lines = (b'{"prompt":"a","id":"x"}', b'{"prompt":"b","id":"x"}')
    remedy = "give each line its own id, or leave id out: then lines are numbered"
    assert problems(*lines) == [f'prompts.jsonl line 2: id "x" is already that of line 1; {remedy}']


def test_missing_lengths_are_reported_when_they_are_needed() -> None:
    [problem] = problems(b'{"prompt":"a"}', need_lengths=True)
    assert problem.startswith("prompts.jsonl line 1: lengths: missing; policy longest-first-oracle and forceLengths")


def test_a_source_without_prompts_is_reported() -> None:
    assert problems(b"\n") == ["prompts.jsonl: empty, needed: at least one prompt"]


def test_only_the_first_problems_are_listed() -> None:
    found = problems(*[b"{"] * 25)
    assert len(found) == 21
    assert found[-1] == "… and 5 more"


@given(st.lists(st.binary(max_size=20) | st.dictionaries(st.text(max_size=8), st.integers()).map(json.dumps)))
def test_any_bytes_are_prompts_or_problems(lines: list[Any]) -> None:
    try:
        found: list[Any] = list(read(*[line.encode() if isinstance(line, str) else line for line in lines]))
    except PromptsError as error:
        found = list(error.problems)
        assert all("\n" not in problem for problem in found)
    assert found
