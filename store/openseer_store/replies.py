"""Replies of plain commands: a server's information about itself, and counts."""

from typing import TypeVar

from openseer_core.errors import StoreError

MOST_COUNT = 2**53
"""Limit of a count: the scripts count in doubles. Readers of untrusted stores add counts and pass the sums to systems
that fail at numbers with hundreds of digits."""

N = TypeVar("N", int, float)


def read_info(text: object) -> dict[str, str]:
    """The fields of a reply to INFO. Raises StoreError if the reply is no text."""
    if not isinstance(text, bytes | str):
        raise StoreError("the store returns no information about itself, unlike every store of openseer")
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else text).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def read_count(found: bytes | str | int) -> int:
    """A whole number. Raises StoreError beyond MOST_COUNT."""
    return _bounded(int(found))


def read_seconds(found: bytes) -> float:
    """A sum of times in seconds. Raises StoreError beyond MOST_COUNT."""
    return _bounded(float(found))


def _bounded(number: N) -> N:
    if not abs(number) <= MOST_COUNT:  # also true for NaN
        raise StoreError(f"the store has a count beyond {MOST_COUNT}, unlike every store of openseer")
    return number
