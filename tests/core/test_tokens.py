"""Tokens and log-probabilities stay the same when they are packed and unpacked."""

import struct
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.tokens import (
    count_items,
    first_not_finite,
    pack_logprobs,
    pack_tokens,
    readable_logprobs,
    unpack_logprobs,
    unpack_tokens,
)


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_tokens_unpack_to_the_packed_ones(ids: list[int]) -> None:
    data = pack_tokens(ids)
    assert unpack_tokens(data) == ids
    assert count_items(data) == len(ids)


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_logprobs_keep_their_single_precision(values: list[float]) -> None:
    assert unpack_logprobs(pack_logprobs(values)) == values


@given(st.lists(st.floats(width=32)))
def test_logprobs_that_are_not_finite_are_none_in_json(values: list[float]) -> None:
    readable = readable_logprobs(pack_logprobs(values))
    assert readable == [value if isfinite(value) else None for value in values]
    assert first_not_finite(values) == (readable.index(None) if None in readable else None)


def test_bytes_are_little_endian_on_every_machine() -> None:
    assert pack_tokens([1, 256]) == b"\x01\0\0\0\0\x01\0\0"
    assert pack_logprobs([-0.5]) == struct.pack("<f", -0.5)


@given(st.lists(st.integers(0, 1000)), st.lists(st.integers(0, 1000)))
def test_bytes_of_two_pieces_are_the_bytes_of_the_whole(first: list[int], second: list[int]) -> None:
    assert pack_tokens(first) + pack_tokens(second) == pack_tokens(first + second)


def test_a_token_that_does_not_fit_and_bytes_that_are_cut_are_refused() -> None:
    with pytest.raises(OverflowError):
        pack_tokens([2**31])
    with pytest.raises(ValueError, match="multiple"):
        unpack_tokens(b"\0\0\0")
