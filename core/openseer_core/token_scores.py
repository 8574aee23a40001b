"""The recorded scores of a response as bytes: per token one record of four-byte items, little-endian.

The first item is the token's own log-probability (float32). With topLogprobs the token's rank follows (int32), and then
pairs of a token id (int32) and its log-probability (float32), likeliest first. All records of a response have the same
length, which follows from the numbers of bytes and tokens.
"""

import sys
from array import array
from math import isfinite
from typing import Any, NamedTuple

from openseer_core.tokens import ITEM_BYTES, count_items

MOST_LIKELIEST = 20
"""Limit of topLogprobs: the default limit of vLLM (max_logprobs), and the limit of OpenAI's API."""
MOST_SCORE_BYTES = 22 * 2**20
"""Limit of the records of one response, because one reply contains a whole response. The records of 131,072 tokens with
20 likeliest tokens each fit."""
_NO_PAIR = bytes(ITEM_BYTES) + b"\0\0\xc0\x7f"
"""A pair without a token: token id 0, log-probability NaN."""
Likeliest = list[tuple[int, float]]
"""Token ids with their log-probabilities, likeliest first."""


class Ranked(NamedTuple):
    """The record of one position: the rank of its token in the vocabulary (1: the likeliest; 0: the token was
    appended), and the likeliest tokens at this position."""

    rank: int
    likeliest: Likeliest


def most_scored(top: int) -> int:
    """Limit of tokens of a response whose records have `top` likeliest tokens each."""
    return MOST_SCORE_BYTES // (ITEM_BYTES * (2 + 2 * top if top else 1))


def record_items(tokens: bytes | bytearray, scores: bytes | bytearray) -> int:
    """Items per record; 0 if no scores are recorded. Raises ValueError if the bytes are not one record per token."""
    count, items = count_items(tokens), count_items(scores)
    if not items:
        return 0
    if not count or items % count or (items > count and items // count % 2):
        raise ValueError(f"found {items} items of scores for {count} tokens, needed: 1 of each, or 4, 6, …")
    return items // count


def own_scores(tokens: bytes, scores: bytes) -> bytes:
    """The log-probability of each token, as float32 bytes. Raises ValueError as `record_items` does."""
    width = record_items(tokens, scores)
    if width <= 1:
        return scores
    return array("f", scores)[::width].tobytes()  # copies bytes, so the byte order does not matter


def ranked(tokens: bytes, scores: bytes) -> list[Ranked] | None:
    """For each token its rank and the likeliest tokens of its position; None if they are not recorded.

    Likeliest tokens that could not be sampled (log-probability -inf, cut by topK, topP or minP) are left out; the list
    of an appended token is empty. Raises ValueError as `record_items` does.
    """
    width = record_items(tokens, scores)
    if width <= 1:
        return None
    whole, values = _items("i", scores), _items("f", scores)
    found: list[Ranked] = []
    for start in range(0, len(whole), width):
        end = start + width
        ids, chances = whole[start + 2 : end : 2], values[start + 3 : end : 2]
        pairs = list(zip(ids, chances, strict=True))
        if not isfinite(sum(chances)):
            pairs = [pair for pair in pairs if isfinite(pair[1])]
        found.append(Ranked(whole[start + 1], pairs))
    return found


def likeliest(tokens: bytes, scores: bytes) -> list[Likeliest] | None:
    """For each token the likeliest tokens of its position, as `ranked` returns them; None if they are not recorded."""
    found = ranked(tokens, scores)
    return None if found is None else [place.likeliest for place in found]


def appended_scores(count: int, items: int) -> bytes:
    """Records, of `items` items each, for `count` appended tokens: log-probability 0, rank 0, no likeliest tokens."""
    heads = min(items, 2)
    return (bytes(heads * ITEM_BYTES) + _NO_PAIR * ((items - heads) // 2)) * count


def _items(code: str, data: bytes) -> "array[Any]":
    items: array[Any] = array(code)
    items.frombytes(data)
    if sys.byteorder == "big":
        items.byteswap()
    return items
