"""Large JSON is read in steps, with the same value or the same error as any other JSON."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core import large_json
from openseer_core.errors import JsonError
from openseer_core.large_json import parse_large
from openseer_core.strict_json import MOST_DEPTH, parse
from tests.repository import SOAK

EXAMPLES = 10_000 if SOAK else 100
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
NUMBERS = st.lists(st.integers() | st.floats(allow_nan=False))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner) | NUMBERS, max_leaves=30
)
MARKS = ["[", "]", "{", "}", ",", ":", " ", "\n", '"', "\\"]
WORDS = ['"a"', '"é"', r'"\ud83d"', r'"\ud83d\ude00"', "NaN", "null", "tru", '"a":1,']
DIGITS = ["1", "-", "0", ".5", "e9", "1e999", "9" * 5000, "1,2,3,"]
PIECES = st.sampled_from([*MARKS, *WORDS, *DIGITS])


def outcome(read: Any, data: bytes) -> str:
    """The value or the error, as text, because NaN does not equal NaN and 1 equals True."""
    try:
        return repr(read(data))
    except JsonError as error:
        return f"refused: {error}"


@settings(max_examples=EXAMPLES, deadline=None)
@given(VALUES, st.sampled_from([None, 1]))
def test_a_value_equals_that_of_the_strict_reader(value: Any, indent: int | None) -> None:
    data = json.dumps(value, indent=indent).encode()
    assert outcome(parse_large, data) == outcome(parse, data)


@settings(max_examples=5 * EXAMPLES, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_wrong_json_is_refused_with_the_same_message(text: str) -> None:
    data = text.encode()
    assert outcome(parse_large, data) == outcome(parse, data)


@pytest.mark.parametrize("depth", [MOST_DEPTH, MOST_DEPTH + 1, 100_000])
def test_depth_has_the_same_limit(depth: int) -> None:
    for data in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        assert outcome(parse_large, data) == outcome(parse, data)


@pytest.mark.parametrize("end", ["7", "-7.5e3", "[8]", '"8"', "{}", "null"])
def test_more_numbers_than_one_step_takes_are_all_read(end: str) -> None:
    data = json.dumps({"ids": [number * 31 for number in range(50_000)]}).replace("]", f", {end}]").encode()
    assert parse_large(data) == json.loads(data)


def test_the_values_of_one_text_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "MOST_VALUES", 10)
    assert parse_large(b'{"a": [[], {}, "b"], "c": [' + b"1, " * 1000 + b"2]}")["a"] == [[], {}, "b"]
    for data in (b"[" + b"[]," * 10 + b"[]]", b"{" + b'"a": {},' * 10, b"[" + b'"a",' * 10):
        with pytest.raises(JsonError, match="more than 10 keys, texts, lists and maps"):
            parse_large(data)
