"""Replies of plain commands: what a server says of itself, and what it has counted."""

from typing import TypeVar

from openseer_core.errors import StoreError

MOST_COUNT = 2**53
"""No count is greater: verbs count in doubles. Who reads stores of others adds counts up and tells them to systems that
end with an error at one of hundreds of digits."""

N = TypeVar("N", int, float)


def read_info(text: object) -> dict[str, str]:
    """The fields of a reply to INFO. Raises StoreError for one that is no text."""
    if not isinstance(text, bytes | str):
        raise StoreError("the store says nothing of itself; no store of openseer's does so")
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else text).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def read_count(found: bytes | str | int) -> int:
    """A whole number. Raises StoreError for one that no store counts to."""
    return _bounded(int(found))


def read_seconds(found: bytes) -> float:
    """A time that was added up. Raises StoreError for one that no store can have."""
    return _bounded(float(found))


def _bounded(number: N) -> N:
    if not abs(number) <= MOST_COUNT:  # so that NaN is none either
        raise StoreError(f"the store has a count beyond {MOST_COUNT}; no store of openseer's does")
    return number
