"""Token ids and log-probabilities as bytes: little-endian int32 and float32, four bytes per item."""

import sys
from array import array
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, Literal

ITEM_BYTES = 4


def pack_tokens(ids: Iterable[int]) -> bytes:
    """Token ids → int32 bytes."""
    return _pack("i", ids)


def unpack_tokens(data: bytes) -> list[int]:
    """int32 bytes → token ids. Raises ValueError if the length is not a multiple of four."""
    return _unpack("i", data)


def pack_logprobs(values: Iterable[float]) -> bytes:
    """Log-probabilities (natural logarithm) → float32 bytes."""
    return _pack("f", values)


def unpack_logprobs(data: bytes) -> list[float]:
    """float32 bytes → log-probabilities. Raises ValueError if the length is not a multiple of four."""
    return _unpack("f", data)


def readable_logprobs(data: bytes) -> list[float | None]:
    """float32 bytes → log-probabilities for JSON; None in place of a value that is not finite.

    Workers record only finite values; data of earlier releases may contain others.
    """
    values = _unpack("f", data)
    return values if _all_finite(values) else [value if isfinite(value) else None for value in values]


def first_not_finite(values: Sequence[float]) -> int | None:
    """The index of the first value that is NaN or infinite; None if all are finite."""
    return None if _all_finite(values) else next(place for place, value in enumerate(values) if not isfinite(value))


def _all_finite(values: Sequence[float]) -> bool:
    """Whether all values are finite, by their sum: sums of float32 values do not overflow, but keep NaN and inf."""
    return isfinite(sum(values))


def count_items(data: bytes | bytearray) -> int:
    """The number of tokens (or log-probabilities) in the bytes."""
    return len(data) // ITEM_BYTES


def _pack(code: Literal["i", "f"], values: Iterable[float]) -> bytes:
    items: array[Any] = array(code, values)
    if sys.byteorder == "big":
        items.byteswap()
    return items.tobytes()


def _unpack(code: Literal["i", "f"], data: bytes) -> list[Any]:
    items: array[Any] = array(code)
    items.frombytes(data)
    if sys.byteorder == "big":
        items.byteswap()
    return items.tolist()
