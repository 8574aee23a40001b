"""Stop strings over tokens that are characters, parts of characters, and parts of words."""

from collections.abc import Sequence
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_text.reading import Reader, reader_of
from openseer_text.stop_strings import StopChecker, TextForm, begun_text, visible_text
from tests.repository import SEED, SOAK
from tests.text.tokenizers_of_tests import BOS, END, SPECIALS, THINK, byte_level, pieces
from tests.text.tokenizers_of_tests import words as spaced_words

STREAMS = 100_000 if SOAK else 300
PIECES = ["", "a", "b", "ab", "ba", "\n", "\n\n", "stop", "st", "op", "é", "END"]
READERS = {"bytes": reader_of(byte_level()), "pieces": reader_of(pieces()), "words": reader_of(spaced_words())}
STOPS = [
    "stop",
    "a b",
    " .",
    "€",
    "t",
    THINK,
    END,
    f".{THINK}",
    f"{THINK}{END}",
    f"{END}\n",
    f"{BOS}a",
    "op" + END + "s",
]
FORMS = [TextForm(special, keep_stop) for special in (False, True) for keep_stop in (False, True)]
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
def test_a_match_is_found_at_its_last_token_after_any_move(
    tokens: list[int], stops: list[str], split: int, min_tokens: int
) -> None:
    earlier, later = tokens[:split], tokens[split:]
    match = StopChecker(Reader(words), stops, earlier, min_tokens).feed(later)
    count = expected(tokens, stops, len(earlier), min_tokens)
    assert (match and len(earlier) + match[0]) == count
    if match:
        assert match[1] in stops


@given(tokens=BYTES, split=st.integers(0, 200))
def test_characters_of_several_tokens_are_read_whole(tokens: list[int], split: int) -> None:
    match = StopChecker(Reader(utf8), ["€", "éb"], tokens[:split]).feed(tokens[split:])
    counts = [
        count
        for count in range(min(split, len(tokens)) + 1, len(tokens) + 1)
        if utf8(tokens[:count]).endswith(("€", "éb"))
    ]
    if match is None:
        assert counts == []
    else:
        assert min(split, len(tokens)) + match[0] == counts[0]


def test_a_match_is_found_in_tokens_that_are_fed_one_by_one() -> None:
    checker = StopChecker(Reader(words), ["stopEND"])
    assert [checker.feed([token]) for token in (8, 9, 0, 7)] == [None] * 4
    assert checker.feed([11, 1]) == (1, "stopEND")


def test_of_several_strings_the_one_that_completes_first_counts() -> None:
    assert StopChecker(Reader(words), ["\n\n", "b\n", "\n"]).feed([2, 6]) == (2, "b\n")


def test_a_string_before_min_tokens_does_not_count_but_a_later_one_does() -> None:
    checker = StopChecker(Reader(words), ["stop"], min_tokens=4)
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
        ([1, 7], "7", "a"),
        ([1, 7], "", "astop"),
        ([7], "stop", ""),
    ],
)
def test_the_text_ends_before_the_string_that_completed(tokens: list[int], reason: str, text: str) -> None:
    assert visible_text(Reader(words), tokens, reason, ["stop", "\n"]) == text


def test_a_string_inside_unfinished_characters_is_cut_too() -> None:
    assert visible_text(Reader(utf8), [97, 0xE2, 0x82, 0xAC], "€", ["€"]) == "a"


def drawn_tokens(draw: st.DrawFn, reader: Reader) -> list[int]:
    """Tokens of a reader's vocabulary, special ones as likely as all others together."""
    most = min(reader.special_ids)
    token = st.one_of(st.integers(0, most - 1), st.sampled_from(sorted(reader.special_ids)))
    return draw(st.lists(token, max_size=100))


def text_with(stop: str, reader: Reader, tokens: Sequence[int]) -> str:
    """The text that is searched for a stop string, decoded in one call."""
    decode = reader.whole if any(word in stop for word in SPECIALS) else reader.text
    return decode(tokens).rstrip("\ufffd") if tokens else ""


def completed(stop: str, reader: Reader, tokens: Sequence[int]) -> int | None:
    """The offset of a stop string that completes with the last token; None if there is none."""
    before, text = text_with(stop, reader, tokens[:-1]), text_with(stop, reader, tokens)
    at = text.find(stop, max(0, len(before) - len(stop) + 1))
    return at if at >= 0 and len(text) > len(before) else None


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_real_tokenizers_stop_like_a_decoder_of_the_whole_text(kind: str, data: st.DataObject) -> None:
    reader = READERS[kind]
    tokens = data.draw(st.composite(drawn_tokens)(reader))
    stops = data.draw(st.lists(st.sampled_from(STOPS), min_size=1, max_size=4, unique=True))
    split = data.draw(st.integers(0, len(tokens)))
    counts = [
        count
        for count in range(split + 1, len(tokens) + 1)
        if any(completed(stop, reader, tokens[:count]) is not None for stop in stops)
    ]
    match = StopChecker(reader, stops, tokens[:split]).feed(tokens[split:])
    assert (match and split + match[0]) == (counts[0] if counts else None)
    if not match:
        return
    ended, stop = tokens[: counts[0]], match[1]
    at = completed(stop, reader, ended)
    assert at is not None
    for form in FORMS:
        text = visible_text(reader, ended, stop, stops, form)
        end = at + len(stop) if form.keep_stop else at
        found = text_with(stop, reader, ended)[:end]
        assert form.of(reader)(ended).startswith(text)
        if form.special == any(word in stop for word in SPECIALS):
            assert text == found
        elif kind == "bytes" and not form.special and "\ufffd" not in reader.whole(ended):
            for word in SPECIALS:
                found = found.replace(word, "")
            assert text == found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", READERS)
def test_the_text_of_a_stream_is_a_prefix_of_the_final_text(kind: str) -> None:
    reader, rng = READERS[kind], Random(SEED)
    plain = range(min(reader.special_ids))
    for _ in range(STREAMS):
        tokens = [
            rng.choice(plain) if rng.random() < 0.5 else rng.choice(sorted(reader.special_ids))
            for _ in range(rng.randrange(1, 14))
        ]
        form = rng.choice(FORMS)
        shown = rng.choice([reader.whole, reader.text])(tokens)
        begins = [rng.randrange(len(shown)) for _ in range(rng.randrange(3)) if shown]
        stops = [shown[begin : begin + rng.randrange(1, 6)] for begin in begins]
        found = StopChecker(reader, stops).feed(tokens) if stops else None
        ended, reason = (tokens[: found[0]], found[1]) if found else (tokens, rng.choice(["", str(tokens[-1])]))
        final = visible_text(reader, ended, reason, stops, form)
        parts = [ended[:count] for count in range(1, len(ended) + 1)]
        if any(not form.of(reader)(ended).startswith(form.of(reader)(part).rstrip("\ufffd")) for part in parts):
            continue  # bytes that are no character, for which the decoder removes the one before them
        for part in parts:
            assert final.startswith(begun_text(reader, part, stops, form)), (tokens, stops, reason, form)


def test_a_stream_holds_back_only_text_that_may_be_cut() -> None:
    letters = byte_level().convert_tokens_to_ids
    reader, tokens = READERS["bytes"], [cast("int", letters(word)) for word in [*"abcdef", END, *"gh"]]
    texts = {form: begun_text(reader, tokens, ["xyz"], form) for form in FORMS}
    assert texts == {
        TextForm(): "abcde",
        TextForm(keep_stop=True): "abcdefg",
        TextForm(special=True): "abcde",
        TextForm(special=True, keep_stop=True): f"abcdef{END}g",
    }


def test_a_run_of_special_tokens_hides_nothing_of_the_text_after_it() -> None:
    reader = READERS["pieces"]
    tokens = [2, *[reader.special[END]] * 50, 1]  # a, and ▁a
    assert StopChecker(reader, ["a a"]).feed(tokens) == (len(tokens), "a a")


def test_a_stop_string_that_is_one_special_token_is_its_id() -> None:
    reader = READERS["bytes"]
    assert reader.stop_token_ids([THINK, "stop", f".{THINK}", END]) == [reader.special[THINK], reader.special[END]]


def test_a_plain_token_that_ended_a_response_needs_keep_stop() -> None:
    for stops in ([], ["x"], ["7"]):
        texts = [visible_text(Reader(words), [1, 4, 7], "7", stops, form) for form in FORMS]
        assert texts == ["abastop" if form.keep_stop else "aba" for form in FORMS]


def test_a_special_token_that_ended_a_response_needs_both_options() -> None:
    reader = READERS["bytes"]
    end = reader.special[END]
    texts = {form: visible_text(reader, [64, end], str(end), ["x"], form) for form in FORMS}
    assert texts == {
        TextForm(): "a",
        TextForm(keep_stop=True): "a",
        TextForm(special=True): "a",
        TextForm(special=True, keep_stop=True): f"a{END}",
    }


def test_no_text_follows_a_stop_string_if_spaces_are_cleaned() -> None:
    reader, tokens = READERS["words"], [0, 1, 3, 2]
    assert reader(tokens) == "a b . stop"
    assert StopChecker(reader, [" ."]).feed(tokens) == (3, " .")
    assert visible_text(reader, tokens[:3], " .", [" ."]) == "a b"


def test_text_of_the_last_token_after_a_kept_stop_string_is_cut() -> None:
    assert visible_text(Reader(words), [1, 7], "st", ["st"], TextForm(keep_stop=True)) == "ast"
