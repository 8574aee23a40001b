"""JSON of users: values that Python's reader preserves are read alike, all others are refused with their place."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core.errors import JsonError
from openseer_core.strict_json import MOST_DEPTH, parse
from tests.repository import SOAK

EXAMPLES = 10_000 if SOAK else 100
TEXT = st.text(st.characters(codec="utf-8"))
ANY_TEXT = st.text(st.characters())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


def values(text: st.SearchStrategy[str], *more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.one_of(SCALARS, text, *more), lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "a.b: found twice, allowed: once"),
        ('[{"a": 1}, {"a": 1, "\\u0061": 1}]', "[1].a: found twice, allowed: once"),
        ('{"metadata": {"score": NaN}}', "metadata.score: found NaN, allowed: a number"),
        ("[0, -Infinity]", "[1]: found -Infinity, allowed: a number"),
        ('{"a": [1e999]}', "a[0]: found 1e999, allowed: a number that a double holds"),
        ("9" * 5000, f"the value: found {'9' * 60}, allowed: a number that a double holds"),
        (r'{"a": "\ud83d"}', r"a: not valid text (half of a character, \ud83d)"),
        (r'"\ude00\ud83d"', r"the value: not valid text (half of a character, \ude00)"),
        (r'"\\ud83d\ude00"', r"the value: not valid text (half of a character, \ude00)"),
        (r'{"\ud83d": 1}', r"the key '\ud83d': not valid text (half of a character, \ud83d)"),
        ('"\ud83d"', r"not valid text (half of a character, \ud83d) at offset 1"),
        (b'"\xff"', "not UTF-8 (byte 0xff at offset 1); encode it as UTF-8"),
        ('{"a": 1, "a": 2', "not valid JSON (Expecting ',' delimiter at column 16, found the end)"),
        ("[1,\n}", "not valid JSON (Expecting value at line 2 column 1, found '}')"),
        ("[1,\n", "not valid JSON (Expecting value at column 4, found the end)"),
        ('["a', "not valid JSON (Unterminated string starting at column 2, found '\"a')"),
        ("", "not valid JSON (Expecting value at column 1, found the end)"),
    ],
)
def test_a_value_that_would_be_lost_or_changed_is_refused_with_place(text: str | bytes, reason: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize("text", [r'"\ud83d\ude00"', r'"\\ud83d\\ude00"', r'"\\\ud83d\ude00"', r'["\\", "\u0041"]'])
def test_whole_characters_are_read_however_they_are_escaped(text: str) -> None:
    assert parse(text) == json.loads(text)


@pytest.mark.parametrize(("opening", "closing", "deep"), [("[", "]", 1), ('{"a":', "}", 1), ('[[],{"]":', "}]", 2)])
def test_the_limit_of_depth_does_not_depend_on_the_stack(opening: str, closing: str, deep: int) -> None:
    levels = MOST_DEPTH // deep
    fitting = opening * levels + "1" + closing * levels
    assert parse(fitting) == json.loads(fitting)
    for more in (1, 10_000):
        with pytest.raises(JsonError, match=f"nested too deeply, allowed: {MOST_DEPTH} "):
            parse(opening * (levels + more) + "1" + closing * (levels + more))


def test_brackets_in_texts_do_not_count_as_depth() -> None:
    text = json.dumps(["[{" * 1000, '"[\\"' * 1000])
    assert parse(text) == json.loads(text)


@pytest.mark.timeout(1800)
@settings(max_examples=EXAMPLES, derandomize=not SOAK, deadline=None)
@given(values(TEXT), st.booleans(), st.sampled_from([None, 1]))
def test_strict_json_that_python_writes_is_read_unchanged(value: Any, ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    assert same(parse(text), value)
    assert same(parse(text.encode()), value)


@pytest.mark.timeout(1800)
@settings(max_examples=EXAMPLES, derandomize=not SOAK, deadline=None)
@given(values(ANY_TEXT, st.just(math.nan), st.just(-math.inf)))
def test_exactly_the_values_that_can_be_sent_on_are_read(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        with pytest.raises(JsonError):
            parse(json.dumps(value))
    else:
        assert same(parse(json.dumps(value)), value)


@pytest.mark.timeout(1800)
@settings(max_examples=EXAMPLES, derandomize=not SOAK, deadline=None)
@given(st.binary() | st.text('{}[]",:0123456789.eE+-tfnaulsr\\ud8 \n').map(str.encode))
def test_any_bytes_are_read_as_python_reads_them_or_refused(data: bytes) -> None:
    try:
        value = parse(data)
    except JsonError:
        return
    assert same(value, json.loads(data))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, also in their types and in the sign of zero."""
    return one == other and json.dumps(one) == json.dumps(other)
