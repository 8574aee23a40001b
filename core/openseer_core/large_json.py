"""Large JSON from a user, read as strictly as any other, in steps between which other threads run.

The interpreter's own reader holds the lock for a whole text: during megabytes of token ids no call would be answered.
Here each entry is a step, and each run of numbers.
"""

import re
from typing import Any

from openseer_core.errors import JsonError
from openseer_core.strict_json import MOST_DEPTH, STRICT, blamed, decoded, unique

MOST_VALUES = 2**21
"""Limit of values in one text, keys included, runs of numbers not: an empty list takes thirty times its two
characters."""

MOST_NUMBERS = 2**20
"""Limit of one list: no prompt has more. Each number takes forty bytes, and the checks of a list do not pause."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBERS = re.compile(r"[-0-9][-+.eE0-9, \t\n\r]{0,65535}(?=,)")
"""Numbers up to a comma; one match takes at most a millisecond."""


def parse_large(data: bytes | bytearray) -> Any:
    """The value of one JSON text in UTF-8, equal to that of strict_json.parse.

    Raises JsonError as that does, also for more than MOST_VALUES values, and for a list of more than MOST_NUMBERS
    entries.
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
    """Reads one text. Raises ValueError for any error in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0

    def value(self, at: int, levels: int) -> tuple[Any, int]:
        """The value at an offset, with at most `levels` levels, and the offset of its end."""
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
        """The offset of the first entry and True, or of the text after an empty list or map and False."""
        if not levels:
            raise ValueError("nested too deeply")
        end = _skipped(self._text, at + 1)
        is_empty = self._text[end : end + 1] == close
        return end + is_empty, not is_empty

    def _next(self, at: int, close: str) -> tuple[int, bool]:
        """The offset of the next entry and True, or of the text after the last one and False."""
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
