"""Of JSON objects: when two are the same, and words for what is wrong with one (where, what was found, is allowed)."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from openseer_core.manifest.generation import REFUSED_SAMPLING

_MOST_SHOWN = 60
"""Characters of a wrong value that an error repeats."""
_ALLOWED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "mapping_type"), "a map"),
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "literal_error": "{expected}",
}
"""What a field takes, by pydantic's type of error."""
_BRANCH = re.compile(r"(str|int|float|bool|constrained-\w+|[A-Z]\w*|[\w-]+\[.*\])")
"""What pydantic adds to a place for each alternative of a field."""


def canonical(value: object) -> str:
    """JSON by which two values are the same: maps in any order, but true is not 1, nor is 1.0."""
    return json.dumps(value, sort_keys=True)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with an object: where, and what."""
    where, what = wrong_places(error.errors(include_url=False), 1)[0]
    return f"{where}: {what}" if where else what


def wrong_places(entries: Sequence[Mapping[str, Any]], most: int) -> list[tuple[str, str]]:
    """Pydantic's errors in words, at most so many: where, and what was found and is allowed.

    Where a field has alternatives, those that go with the value furthest are told, as one.
    """
    placed = [(_alternatives(entry), _place(entry), entry) for entry in entries]
    furthest: dict[tuple[Any, ...], int] = {}
    for field, place, _ in placed:
        furthest[field] = max(furthest.get(field, 0), len(place))
    told: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for field, place, entry in placed:
        if len(place) == furthest[field]:
            told.setdefault(place, []).append(entry)
    return [(".".join(map(str, place)), _words(found)) for place, found in list(told.items())[:most]]


def what_is_wrong(entry: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words."""
    return _words([entry])


def _alternatives(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of the field whose alternatives an error is of; without any its own place."""
    place = entry["loc"]
    if entry["type"] == "extra_forbidden":
        return place
    return next((place[:end] for end, part in enumerate(place) if _is_branch(part)), place)


def _is_branch(part: object) -> bool:
    return isinstance(part, str) and _BRANCH.fullmatch(part) is not None


def _place(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    place = entry["loc"]
    named = place[-1:] if entry["type"] == "extra_forbidden" else ()
    rest = place[: len(place) - len(named)]
    return tuple(part for part in rest if not _is_branch(part)) + named


def _words(entries: Sequence[Mapping[str, Any]]) -> str:
    first = entries[0]
    known = [_ALLOWED[entry["type"]].format(**entry.get("ctx", {})) for entry in entries if entry["type"] in _ALLOWED]
    if not known or first["type"] not in _ALLOWED:
        return _unnamed(first)
    return f"found {_shown(first.get('input'))}, allowed: {' or '.join(dict.fromkeys(known))}"


def _unnamed(entry: Mapping[str, Any]) -> str:
    """Of an error that no wrong value of a known field caused."""
    if entry["type"] == "missing":
        return "missing"
    if entry["type"] != "extra_forbidden":
        return str(entry["msg"]).removeprefix("Value error, ")
    refused = REFUSED_SAMPLING.get(to_camel(str(entry["loc"][-1])))
    return f"found {_shown(entry.get('input'))}, not supported: {refused[1]}" if refused else "unknown field"


def _shown(value: object) -> str:
    """A scalar as JSON, cut when it is long; what holds others by its kind, for it may be very large."""
    if isinstance(value, list | tuple | dict):
        return "a map" if isinstance(value, dict) else f"a list of {len(cast('list[object]', value))}"
    if isinstance(value, str):
        value = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…"
    elif value is not None and not isinstance(value, int | float):
        return type(value).__name__
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN + 3 else f"{text[:_MOST_SHOWN]}…"
