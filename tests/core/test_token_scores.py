"""Scores of tokens as records: each token's own, and those of the likeliest tokens at its position."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.token_scores import Likeliest, appended_scores, likeliest, own_scores, ranked, record_items
from openseer_core.tokens import pack_logprobs, pack_tokens, unpack_logprobs

SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)


def packed(own: list[float], pairs: list[Likeliest]) -> bytes:
    return b"".join(
        pack_logprobs([value])
        + pack_tokens([rank])
        + b"".join(pack_tokens([token]) + pack_logprobs([score]) for token, score in of)
        for rank, (value, of) in enumerate(zip(own, pairs, strict=True), 1)
    )


@given(st.data(), st.integers(1, 5), st.integers(1, 6))
def test_records_unpack_to_the_packed_scores(data: st.DataObject, top: int, count: int) -> None:
    own = data.draw(st.lists(SCORES, min_size=count, max_size=count))
    pair = st.tuples(st.integers(0, 2**31 - 1), SCORES)
    pairs = data.draw(st.lists(st.lists(pair, min_size=top, max_size=top), min_size=count, max_size=count))
    tokens, scores = pack_tokens(range(count)), packed(own, pairs)
    assert record_items(tokens, scores) == 2 + 2 * top
    assert unpack_logprobs(own_scores(tokens, scores)) == own
    assert likeliest(tokens, scores) == pairs
    assert [place.rank for place in ranked(tokens, scores) or []] == list(range(1, count + 1))


def test_without_likeliest_tokens_a_record_is_one_score() -> None:
    tokens, scores = pack_tokens([1, 2]), pack_logprobs([-1, -2])
    assert (record_items(tokens, scores), own_scores(tokens, scores)) == (1, scores)
    assert likeliest(tokens, scores) is None
    assert (record_items(tokens, b""), own_scores(tokens, b""), likeliest(tokens, b"")) == (0, b"", None)


def test_cut_records_and_appended_tokens_have_no_likeliest_tokens() -> None:
    cut = packed([-1.0], [[(4, -0.5), (5, -inf)]])
    scores = cut + appended_scores(2, 6)
    tokens = pack_tokens([1, 2, 3])
    assert ranked(tokens, scores) == [(1, [(4, -0.5)]), (0, []), (0, [])]
    assert likeliest(tokens, scores) == [[(4, -0.5)], [], []]
    assert unpack_logprobs(own_scores(tokens, scores)) == [-1, 0, 0]
    assert appended_scores(3, 0) == b""
    assert appended_scores(3, 1) == bytes(12)


@pytest.mark.parametrize(("tokens", "items"), [(2, 3), (1, 3), (0, 1), (3, 9)])
def test_scores_that_are_not_of_every_token_are_refused(tokens: int, items: int) -> None:
    with pytest.raises(ValueError, match=f"found {items} items of scores for {tokens} tokens"):
        record_items(bytes(4 * tokens), bytes(4 * items))
