"""Messages for pydantic's errors in JSON objects (place, value found, values allowed); comparison of JSON values."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from openseer_core.manifest.generation import REFUSED_SAMPLING
from openseer_core.model_fields import fields_at
from openseer_core.wording import unknown_field

_MOST_SHOWN = 60
"""Limit of a wrong value in a message, in characters."""
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
"""The allowed values of a field, by pydantic's error type."""
_BRANCH = re.compile(r"(str|int|float|bool|constrained-\w+|[A-Z]\w*|[\w-]+\[.*\])")
"""A part of an error's place that names one alternative of a union type; pydantic adds it."""


def canonical(value: object) -> str:
    """JSON text by which values are compared: maps in any order are equal; true, 1 and 1.0 are different."""
    return json.dumps(value, sort_keys=True)


def with_model(entries: Sequence[Mapping[str, Any]], model: type[BaseModel], depth: int = 0) -> list[dict[str, Any]]:
    """Pydantic's errors with the model of the object, which messages about missing and unknown fields need.

    `depth`: number of parts with which the places begin and that are not of the object, such as `body`.
    """
    return [{**entry, "model": model, "field": entry["loc"][depth:]} for entry in entries]


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first error of an object: place and message. `model`: of the object, if it is known."""
    found: Sequence[Mapping[str, Any]] = error.errors(include_url=False)
    where, what = wrong_places(found if model is None else with_model(found, model), 1)[0]
    return f"{where}: {what}" if where else what


def wrong_places(entries: Sequence[Mapping[str, Any]], most: int) -> list[tuple[str, str]]:
    """Pydantic's errors as (place, message), at most `most` of them.

    For a field with a union type only the errors at the deepest place are reported, because that alternative matches
    the value best. Errors at the same place become one message.
    """
    placed = [(_alternatives(entry), _place(entry), entry) for entry in entries]
    furthest: dict[tuple[Any, ...], int] = {}
    for field, place, _ in placed:
        furthest[field] = max(furthest.get(field, 0), len(place))
    by_place: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for field, place, entry in placed:
        if len(place) == furthest[field]:
            by_place.setdefault(place, []).append(entry)
    return [(".".join(map(str, place)), _words(found)) for place, found in list(by_place.items())[:most]]


def what_is_wrong(entry: Mapping[str, Any]) -> str:
    """The message of one of pydantic's errors, without its place."""
    return _words([entry])


def _alternatives(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of the union-typed field that contains the error; the error's own place if there is none."""
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
    """The message of another error: a missing field, an unknown field, or the message of a validator."""
    if entry["type"] == "missing":
        about = _siblings(entry).get(str(entry["loc"][-1]))
        return f"missing ({about})" if about else "missing"
    if entry["type"] != "extra_forbidden":
        return str(entry["msg"]).removeprefix("Value error, ")
    name = str(entry["loc"][-1])
    if refused := REFUSED_SAMPLING.get(to_camel(name)):
        return f"found {_shown(entry.get('input'))}, not supported: {refused[1]}; leave it out"
    known = [*_siblings(entry)]
    return unknown_field(name, known) if known else "unknown field"


def _siblings(entry: Mapping[str, Any]) -> dict[str, str]:
    """The fields beside that of an error, with their descriptions; empty without a model (`with_model`)."""
    if "model" not in entry:
        return {}
    return fields_at(entry["model"], [part for part in entry["field"][:-1] if not _is_branch(part)])


def _shown(value: object) -> str:
    """A scalar as JSON, cut if it is long; for a list or map only its kind, because it may be very large."""
    if isinstance(value, list | tuple | dict):
        return "a map" if isinstance(value, dict) else f"a list of {len(cast('list[object]', value))}"
    if isinstance(value, str):
        value = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…"
    elif value is not None and not isinstance(value, int | float):
        return type(value).__name__
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN + 3 else f"{text[:_MOST_SHOWN]}…"
