"""Stop strings over tokens that are characters, parts of characters, and parts of words."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_text.stop_strings import StopChecker, visible_text

PIECES = ["", "a", "b", "ab", "ba", "\n", "\n\n", "stop", "st", "op", "é", "END"]
BYTES = st.lists(st.sampled_from([97, 98, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xFF]), max_size=200)


def words(tokens: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


def utf8(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode(errors="replace")


def expected(tokens: Sequence[int], stops: Sequence[str], begin: int = 0, min_tokens: int = 0) -> int | None:
    """The number of tokens at which a stop string completes, found by decoding everything again at each token."""
    for count in range(begin + 1, len(tokens) + 1):
        before = len(words(tokens[: count - 1]))
        text = words(tokens[:count])
        found = any(text.find(stop, max(0, before - len(stop) + 1)) >= 0 for stop in stops)
        if found and len(text) > before and count >= min_tokens:
            return count
    return None


@given(
    tokens=st.lists(st.integers(0, len(PIECES) - 1), max_size=150),
    stops=st.lists(st.sampled_from(["stop", "ab\n", "aa", "\n", "né"]), min_size=1, max_size=3, unique=True),
    split=st.integers(0, 150),
    min_tokens=st.integers(0, 40),
)
def test_a_match_is_found_at_the_token_that_completes_it_wherever_the_response_moved(
    tokens: list[int], stops: list[str], split: int, min_tokens: int
) -> None:
    earlier, later = tokens[:split], tokens[split:]
    match = StopChecker(words, stops, earlier, min_tokens).feed(later)
    count = expected(tokens, stops, len(earlier), min_tokens)
    assert (match and len(earlier) + match[0]) == count
    if match:
        assert match[1] in stops


@given(tokens=BYTES, split=st.integers(0, 200))
def test_characters_of_several_tokens_are_read_whole(tokens: list[int], split: int) -> None:
    match = StopChecker(utf8, ["€", "éb"], tokens[:split]).feed(tokens[split:])
    counts = [
        count
        for count in range(min(split, len(tokens)) + 1, len(tokens) + 1)
        if utf8(tokens[:count]).endswith(("€", "éb"))
    ]
    if match is None:
        assert counts == []
    else:
        assert min(split, len(tokens)) + match[0] == counts[0]


def test_the_same_holds_step_by_step() -> None:
    checker = StopChecker(words, ["stopEND"])
    assert [checker.feed([token]) for token in (8, 9, 0, 7)] == [None] * 4
    assert checker.feed([11, 1]) == (1, "stopEND")


def test_of_several_strings_the_one_that_completes_first_counts() -> None:
    assert StopChecker(words, ["\n\n", "b\n", "\n"]).feed([2, 6]) == (2, "b\n")


def test_a_string_before_min_tokens_does_not_count_but_a_later_one_does() -> None:
    checker = StopChecker(words, ["stop"], min_tokens=4)
    assert checker.feed([7, 1, 1]) is None
    assert checker.feed([7]) == (1, "stop")


@pytest.mark.parametrize(
    ("tokens", "reason", "text"),
    [
        ([1, 7], "stop", "a"),
        ([7, 1, 8, 9], "stop", "stopa"),
        ([1, 6], "\n", "a"),
        ([1, 5, 6], "\n", "a\n"),
        ([1, 7], "2", "astop"),
        ([1, 7], "", "astop"),
        ([7], "stop", ""),
    ],
)
def test_the_text_ends_before_the_string_that_completed(tokens: list[int], reason: str, text: str) -> None:
    assert visible_text(words, tokens, reason, ["stop", "\n"]) == text


def test_a_string_inside_unfinished_characters_is_cut_too() -> None:
    assert visible_text(utf8, [97, 0xE2, 0x82, 0xAC], "€", ["€"]) == "a"
