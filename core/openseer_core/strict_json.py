"""Strict reading of JSON from a user: JSON whose values Python would drop or change is refused.

Python's json module reads the text, so the time is about the same; its hooks refuse such values. Only if the JSON is
wrong, a second pass finds the place of the error.
"""

import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NoReturn, cast

from openseer_core.errors import JsonError

MOST_DEPTH = 128
"""Limit of nested lists and maps, so that recursion over an accepted value has enough stack."""
MOST_SHOWN = 60
"""Limit of a name or value in a message, in characters."""
MOST_OF_FAULT = 12
"""Limit of the text that a message shows at the place of a fault, in characters."""

_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
# An escaped surrogate without its other half next to it. If the backslash of the first half may itself be escaped, the
# pattern also matches; then a slower test decides: the value is encoded.
_HALF = re.compile(
    r"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F](?<!\\u[dD][89abAB]..\\u[dD].)|(?<=\\\\u[dD])[89abAB])", re.DOTALL
)
_TEXT = re.compile(rb'"[^"]*"')
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def parse(data: bytes | bytearray | str) -> Any:
    """The value of one JSON text, given as bytes in UTF-8 or as str.

    Raises JsonError with the error and its place, for: not UTF-8, not JSON, a key given twice, NaN or infinity, a
    number beyond a double, a lone surrogate, more than MOST_DEPTH levels.
    """
    text = decoded(data)
    try:
        value = _read(STRICT, text)
        if _depth(text) > MOST_DEPTH:
            raise _too_deep()
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        raise blamed(text) from None
    return value


def require_whole_text(value: object, name: str) -> None:
    """Raises JsonError for a lone surrogate anywhere in a JSON value, because UTF-8 cannot encode it.

    `name`: of the value, before the place in the message.
    """
    for fault in _faults(value, name):
        raise JsonError(fault)


def _read(decoder: json.JSONDecoder, text: str) -> Any:
    """Decodes a text. Raises JsonError for text that is not JSON, ValueError for a value that a hook refuses."""
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"not valid JSON ({_fault(error)})") from None
    except RecursionError:
        raise _too_deep() from None


def _fault(error: json.JSONDecodeError) -> str:
    """The expected text, its place and the text found. White space at the end, as after a line, is not counted."""
    text = error.doc.rstrip()
    place = json.JSONDecodeError(error.msg, text, min(error.pos, len(text)))
    line = f"line {place.lineno} " if place.lineno > 1 else ""
    rest = text[place.pos :].split("\n", 1)[0]
    found = repr(rest[:MOST_OF_FAULT]) if rest else "the end"
    return f"{place.msg.removesuffix(' at')} at {line}column {place.colno}, found {found}"


def decoded(data: bytes | bytearray | str) -> str:
    """The text, decoded from UTF-8 if it is bytes. Raises JsonError for wrong UTF-8 and for lone surrogates."""
    try:
        if not isinstance(data, str):
            return data.decode()
        if not data.isascii():
            data.encode()
    except UnicodeDecodeError as error:
        raise JsonError(
            f"not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start}); encode it as UTF-8"
        ) from None
    except UnicodeEncodeError as error:
        raise JsonError(f"{_half(error)} at offset {error.start}") from None
    return data


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A map of (key, value) pairs. Raises ValueError for a key given twice."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key given twice")
    return fields


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("more than a double holds")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


STRICT = json.JSONDecoder(object_pairs_hook=unique, parse_float=_finite, parse_constant=_no_constant)
"""The decoder of the first pass. It raises ValueError, without a place, for refused values."""


def _depth(text: str) -> int:
    """The nesting depth of valid JSON; only an upper bound if that is at most MOST_DEPTH. C code scans the text."""
    plain = text.encode()
    if b"\\" in plain:
        plain = plain.replace(rb"\\", b"").replace(rb"\"", b"")
    plain = plain.translate(None, _NO_STRUCTURE)
    opened = plain.count(b"[") + plain.count(b"{")
    if opened <= MOST_DEPTH:
        return opened
    return max(accumulate(map(_STEPS.__getitem__, _TEXT.sub(b"", plain))), default=0)


def _too_deep() -> JsonError:
    return JsonError(f"not usable JSON (nested too deeply, allowed: {MOST_DEPTH} lists and maps within one another)")


class _Pairs(list[tuple[str, Any]]):
    """A map as (key, value) pairs, duplicate keys included."""


class _NoNumber(str):
    """The text of a number that is not finite, too large for a double, or too long for the interpreter."""


def _number(written: str) -> float | _NoNumber:
    value = float(written)
    return value if math.isfinite(value) else _NoNumber(written)


def _whole_number(written: str) -> int | _NoNumber:
    try:
        return int(written)
    except ValueError:
        # The interpreter limits the digits of an int.
        return _NoNumber(written)


_LENIENT = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_float=_number, parse_int=_whole_number, parse_constant=_NoNumber
)


def blamed(text: str) -> JsonError:
    """The error about the first fault in JSON that STRICT has refused."""
    tree = _read(_LENIENT, text)
    if _depth(text) > MOST_DEPTH:
        return _too_deep()
    return JsonError(next(_faults(tree, "")))


def _faults(value: object, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs | dict):
        pairs = value if isinstance(value, _Pairs) else cast("dict[str, object]", value).items()
        seen: set[str] = set()
        for key, entry in pairs:
            place = f"{path}.{shown_name(key)}" if path else shown_name(key)
            yield from _faults(key, f"the key {place}")
            if key in seen:
                yield f"{place}: found twice, allowed: once"
            seen.add(key)
            yield from _faults(entry, place)
    elif isinstance(value, list):
        for index, entry in enumerate(cast("list[object]", value)):
            if not isinstance(entry, int | float):
                yield from _faults(entry, f"{path}[{index}]")
    elif isinstance(value, str):
        yield from _faults_of_scalar(value, path or "the value")


def _faults_of_scalar(value: str, path: str) -> Iterator[str]:
    if isinstance(value, _NoNumber):
        allowed = "a number" if value in _NO_NUMBERS else "a number that a double holds"
        yield f"{path}: found {value[:MOST_SHOWN]}, allowed: {allowed}"
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        yield f"{path}: {_half(error)}"


def _half(error: UnicodeEncodeError) -> str:
    return f"not valid text (half of a character, \\u{ord(error.object[error.start]):04x})"


def shown_name(name: str) -> str:
    """A key for a message of one line, at most MOST_SHOWN characters; a key may contain any character."""
    plain = name if name.isprintable() else repr(name)
    return plain if len(plain) <= MOST_SHOWN else plain[: MOST_SHOWN - 1] + "…"
