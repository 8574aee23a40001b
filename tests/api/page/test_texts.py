"""The text of each token, as the page shades it."""

from collections.abc import Sequence

from openseer_api.page.group_views import TokenTexts
from openseer_text.reading import Reader


def read_bytes(tokens: Sequence[int]) -> str:
    """A tokenizer of bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


def read_words(tokens: Sequence[int]) -> str:
    """A tokenizer whose words begin with a blank, which it omits at the begin of a text."""
    return "".join(f" w{token}" for token in tokens)[1:]


def test_the_last_token_of_a_character_has_it() -> None:
    texts = TokenTexts(Reader(read_bytes), {})
    assert texts.feed("a€b".encode()) == ["a", "", "", "€", "b"]


def test_a_character_may_be_cut_between_two_views() -> None:
    texts, data = TokenTexts(Reader(read_bytes), {}), "é!".encode()
    assert [*texts.feed(data[:1]), *texts.feed(data[1:])] == ["", "é", "!"]


def test_invalid_bytes_do_not_delay_the_following_text() -> None:
    texts = TokenTexts(Reader(read_bytes), {})
    shown = texts.feed(b"\xf0\xf0\xf0\xf0abc")
    assert "".join(shown).endswith("abc")
    assert len(shown) == 7


def test_a_blank_before_a_word_is_kept() -> None:
    texts = TokenTexts(Reader(read_words), {})
    assert texts.feed([1, 2]) == [" w1", " w2"]
