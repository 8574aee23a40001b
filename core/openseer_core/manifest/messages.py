"""Error messages about a manifest: the place, the value found, the allowed values."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast

from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from openseer_core.manifest.generation import REFUSED_SAMPLING
from openseer_core.manifest.job import RolloutJob
from openseer_core.wording import one_line, shown

Schema = Mapping[str, Any]
# The schema of values in a free-form map.
_FREE: Schema = {}
_TYPE_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map",
}


def problem_line(error: ErrorDetails) -> str:
    """The message of one of pydantic's errors, in one line."""
    # Marks such as "[key]", which pydantic adds, are not part of the path.
    place = tuple(part for part in error["loc"] if not (isinstance(part, str) and part.startswith("[")))
    path = _dotted(place)
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return f"{path}: {_unknown(place)}"
    schema = schema_at(place)
    if error["type"] == "missing":
        return f"{path}: missing; {_first_sentence(schema.get('description', 'required'))}"
    return f"{path}: found {shown(error['input'])}, allowed: {allowed_text(schema, error['input'])}"


def _dotted(place: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{one_line(part)}" for part in place)
    return text.removeprefix(".") or "the document"


def _first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


@cache
def _root() -> Schema:
    return RolloutJob.model_json_schema(by_alias=True)


def _resolved(schema: Schema) -> Schema:
    """The schema with references resolved and without the alternative null; keys beside a reference take precedence."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        schema = {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    if "$ref" in schema:
        target = _root()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        schema = {**_resolved(target), **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def schema_at(place: Sequence[str | int]) -> Schema:
    """The JSON schema of the field at this place; empty inside a free-form map."""
    schema = _resolved(_root())
    for part in place:
        if isinstance(part, int):
            inner = schema.get("items")
        else:
            fields = cast("Schema", schema.get("properties", {}))
            inner = fields.get(part) or schema.get("additionalProperties")
        schema = _resolved(cast("Schema", inner)) if isinstance(inner, Mapping) else _FREE
    return schema


def allowed_text(schema: Schema, found: object) -> str:
    """The values that a field accepts, in words. If the found value has the right type, only the bounds."""
    if "x-allowed" in schema:
        return schema["x-allowed"]
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "properties" in schema:
        return "a map with " + ", ".join(schema["properties"])
    kind = _TYPE_WORDS.get(schema.get("type", ""), "text, a number, true or false, a list or a map")
    bounds = " and ".join(_bounds(schema))
    if not bounds:
        return kind
    return bounds if _right_kind(schema, found) else f"{kind}, {bounds}"


def _right_kind(schema: Schema, found: object) -> bool:
    """Whether the value's type is right, so that the message states only the bounds."""
    if isinstance(found, bool):
        return False
    return isinstance(found, {"integer": int, "number": int | float}.get(schema.get("type", ""), ()))


def _bounds(schema: Schema) -> Iterator[str]:
    if schema.get("minLength") == 1:
        yield "not empty"
    for key, text in (
        ("minimum", "at least {}"),
        ("exclusiveMinimum", "greater than {}"),
        ("maximum", "at most {}"),
        ("maxLength", "at most {} characters"),
        ("minItems", "at least {} entry"),
        ("maxItems", "at most {} entries"),
    ):
        if key in schema:
            yield text.format(f"{schema[key]:g}" if isinstance(schema[key], float) else schema[key])


def _unknown(place: Sequence[str | int]) -> str:
    parent, name = place[:-1], str(place[-1])
    if tuple(parent) == ("spec", "sampling") and (why := _why_refused(to_camel(name))):
        return f"not supported: {why}"
    known = [field for field in schema_at(parent).get("properties", {}) if field != "status"]
    by_folded = {_folded(field): field for field in known}
    near = difflib.get_close_matches(_folded(name), by_folded, n=1)
    if near:
        return f'unknown field; did you mean "{by_folded[near[0]]}"?'
    elsewhere = [path for path, field in _all_fields() if _folded(field) == _folded(name)]
    if elsewhere:
        return f"unknown field; did you mean {' or '.join(elsewhere)}?"
    return f"unknown field, known: {', '.join(known)}"


def _why_refused(name: str) -> str | None:
    if name == "n":
        return "set spec.groupSize, the number of responses per prompt"
    return f"{REFUSED_SAMPLING[name][1]}; leave it out" if name in REFUSED_SAMPLING else None


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _all_fields(schema: Schema | None = None, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, inner in _resolved(_root() if schema is None else schema).get("properties", {}).items():
        yield f"{prefix}{name}", name
        yield from _all_fields(inner, f"{prefix}{name}.")
