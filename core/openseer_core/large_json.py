"""Strict reading of large JSON from a user, in steps between which other threads can run.

Python's json module holds the interpreter lock for a whole text, so megabytes of token ids would delay all other calls
of the server. Here one step reads one value, or one sequence of numbers of at most 64 KiB.
"""

import re
from typing import Any

from openseer_core.errors import JsonError
from openseer_core.strict_json import MOST_DEPTH, STRICT, blamed, decoded, unique

MOST_VALUES = 2**21
"""Limit of values in one text; keys count, numbers in lists mostly do not. It bounds memory: an empty list takes
thirty times the memory of its two characters."""

MOST_NUMBERS = 2**20
"""Limit of numbers in one list; no prompt has more tokens. It bounds memory (40 bytes per number), and the time of
later checks of the list, during which no other thread runs."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBERS = re.compile(r"[-0-9][-+.eE0-9, \t\n\r]{0,65535}(?=,)")
"""A sequence of numbers before a comma. Its length is limited so that a match takes at most a millisecond."""


def parse_large(data: bytes | bytearray) -> Any:
    """The value of one JSON text in UTF-8; the same value as strict_json.parse returns.

    Raises JsonError as strict_json.parse does, and also for more than MOST_VALUES values, and for a list of more than
    MOST_NUMBERS numbers.
    """
    text = decoded(data)
    try:
        value, end = _Reader(text).value(_skipped(text, 0), MOST_DEPTH)
        if _skipped(text, end) < len(text):
            raise ValueError("something follows")
    except JsonError:
        raise
    except ValueError:
        raise blamed(text) from None
    return value


class _Reader:
    """Reads one text. Its methods raise ValueError for an error in the text, JsonError for an exceeded limit."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0

    def value(self, at: int, levels: int) -> tuple[Any, int]:
        """The value at offset `at`, nested at most `levels` deep, and the offset after it."""
        self._count += 1
        if self._count > MOST_VALUES:
            raise JsonError(f"found more than {MOST_VALUES} keys, texts, lists and maps, the limit of one text")
        kind = self._text[at : at + 1]
        if kind == "[":
            return self._list(at, levels)
        if kind == "{":
            return self._map(at, levels)
        value, end = STRICT.raw_decode(self._text, at)
        if isinstance(value, str) and not value.isascii():
            value.encode()
        return value, end

    def _list(self, at: int, levels: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        end, goes_on = self._first(at, "]", levels)
        while goes_on:
            if numbers := _NUMBERS.match(self._text, end):
                found += STRICT.decode(f"[{numbers[0]}]")
                if len(found) > MOST_NUMBERS:
                    text = f"found more than {MOST_NUMBERS} entries, the limit of one list"
                    raise JsonError(f"the list at offset {at}: {text}")
                end = _skipped(self._text, numbers.end() + 1)
            value, end = self.value(end, levels - 1)
            found.append(value)
            end, goes_on = self._next(end, "]")
        return found, end

    def _map(self, at: int, levels: int) -> tuple[dict[str, Any], int]:
        found: list[tuple[str, Any]] = []
        end, goes_on = self._first(at, "}", levels)
        while goes_on:
            key, end = self.value(end, 0)
            end = _skipped(self._text, end)
            if not isinstance(key, str) or self._text[end : end + 1] != ":":
                raise ValueError("no key")
            value, end = self.value(_skipped(self._text, end + 1), levels - 1)
            found.append((key, value))
            end, goes_on = self._next(end, "}")
        return unique(found), end

    def _first(self, at: int, close: str, levels: int) -> tuple[int, bool]:
        """(offset of the first entry, True), or (offset after the list or map, False) if it is empty."""
        if not levels:
            raise ValueError("nested too deeply")
        end = _skipped(self._text, at + 1)
        is_empty = self._text[end : end + 1] == close
        return end + is_empty, not is_empty

    def _next(self, at: int, close: str) -> tuple[int, bool]:
        """(offset of the next entry, True), or (offset after the list or map, False) if there is none."""
        end = _skipped(self._text, at)
        mark = self._text[end : end + 1]
        if mark == close:
            return end + 1, False
        if mark != ",":
            raise ValueError("no comma")
        return _skipped(self._text, end + 1), True


def _skipped(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
