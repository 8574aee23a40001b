"""The recorded scores of a response as bytes: one record of four-byte items per token, little-endian.

The first item is the token's own log-probability, float32. With topLogprobs its rank follows, int32, and then pairs,
likeliest first: a token id, int32, and its log-probability, float32. All records of a response have the same length,
so it follows from the number of bytes and tokens.
"""

import sys
from array import array
from math import isfinite
from typing import Any, NamedTuple

from openseer_core.tokens import ITEM_BYTES, count_items

MOST_LIKELIEST = 20
"""The default limit of vLLM (max_logprobs), and that of OpenAI's API."""
MOST_SCORE_BYTES = 22 * 2**20
"""Limit of one response, because one reply holds a whole response. 131,072 tokens with 20 likeliest ones fit."""
_NO_PAIR = bytes(ITEM_BYTES) + b"\0\0\xc0\x7f"
"""Token 0, log-probability NaN."""
Likeliest = list[tuple[int, float]]
"""Token ids with their log-probabilities, likeliest first."""


class Ranked(NamedTuple):
    """The record of a token's position: its rank in the vocabulary (1: the likeliest; 0: it was appended), and the
    likeliest tokens there."""

    rank: int
    likeliest: Likeliest


def most_scored(top: int) -> int:
    """Tokens of the longest response whose records have `top` likeliest tokens."""
    return MOST_SCORE_BYTES // (ITEM_BYTES * (2 + 2 * top if top else 1))


def record_items(tokens: bytes | bytearray, scores: bytes | bytearray) -> int:
    """Items per record: 0 if no scores are recorded. Raises ValueError if not every token has one."""
    count, items = count_items(tokens), count_items(scores)
    if not items:
        return 0
    if not count or items % count or (items > count and items // count % 2):
        raise ValueError(f"found {items} items of scores for {count} tokens, needed: 1 of each, or 4, 6, …")
    return items // count


def own_scores(tokens: bytes, scores: bytes) -> bytes:
    """float32 bytes: the log-probability of each token. Raises ValueError as `record_items` does."""
    width = record_items(tokens, scores)
    if width <= 1:
        return scores
    return array("f", scores)[::width].tobytes()  # copies bytes, so the byte order does not matter


def ranked(tokens: bytes, scores: bytes) -> list[Ranked] | None:
    """For each token its rank and the likeliest ones of its position; None if they are not recorded.

    Tokens that could not have been sampled (log-probability -inf: cut by topK, topP or minP) are left out; appended
    tokens have none. Raises ValueError as `record_items` does.
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
    """The same without the ranks."""
    found = ranked(tokens, scores)
    return None if found is None else [place.likeliest for place in found]


def appended_scores(count: int, items: int) -> bytes:
    """Records of tokens that were not sampled: log-probability 0, rank 0, and no likeliest tokens."""
    heads = min(items, 2)
    return (bytes(heads * ITEM_BYTES) + _NO_PAIR * ((items - heads) // 2)) * count


def _items(code: str, data: bytes) -> "array[Any]":
    items: array[Any] = array(code)
    items.frombytes(data)
    if sys.byteorder == "big":
        items.byteswap()
    return items
