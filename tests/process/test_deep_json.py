"""One object that is nested more deeply than the interpreter reads does not prevent reading the others of its page."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from openseer_process.deep_json import DEEPEST, read_deep_json_everywhere, read_json

DEEP = 5000
PAGE = '{"items":[{"name":"a\\"]}"},' + '{"name":' * DEEP + '"b]"' + "}" * DEEP + ',{"name":"c","ids":[[],[1,2]]}]}'


def depth(value: Any) -> int:
    levels = 0
    while value is not None:
        value, levels = value["name"], levels + 1
    return levels


@pytest.fixture
def everywhere() -> Iterator[None]:
    before = json.__dict__["_default_decoder"]
    read_deep_json_everywhere()
    yield
    json.__dict__["_default_decoder"] = before


@pytest.mark.parametrize("text", [PAGE, PAGE.encode()])
def test_a_value_that_is_too_deep_is_cut_and_the_rest_is_unchanged(text: str | bytes) -> None:
    first, deep, last = read_json(text)["items"]
    assert (first, last) == ({"name": 'a"]}'}, {"name": "c", "ids": [[], [1, 2]]})
    assert depth(deep) == DEEPEST - 2


@pytest.mark.usefixtures("everywhere")
def test_libraries_with_their_own_calls_of_json_read_the_same() -> None:
    assert len(json.loads(PAGE)["items"]) == 3
    assert len(json.loads(PAGE.encode())["items"]) == 3


def test_readable_json_is_read_whole_and_other_text_is_refused() -> None:
    within = "[" * (DEEPEST + 9) + "]" * (DEEPEST + 9)
    assert json.dumps(read_json(within)) == within
    with pytest.raises(ValueError, match="Expecting"):
        read_json(PAGE[:-1] + ",")
