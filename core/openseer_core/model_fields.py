"""Finds the fields of an object inside a pydantic model, for messages about a missing or unknown field."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

ModelSchema = Mapping[str, Any]


def fields_at(model: type[BaseModel], place: Sequence[str | int]) -> dict[str, str]:
    """The fields of the object at this place: name → first sentence of its description, "" for none.

    Empty if the place has no object with fixed fields. For a union type, the fields of all its alternatives.
    """
    root = _schema(model)
    found = list(_alternatives(root, root))
    for part in place:
        inner = [entry for schema in found for entry in _entries(schema, part)]
        found = [option for schema in inner for option in _alternatives(schema, root)]
    return {
        name: _first_sentence(field, root) for schema in found for name, field in schema.get("properties", {}).items()
    }


@cache
def _schema(model: type[BaseModel]) -> ModelSchema:
    return model.model_json_schema()


def _alternatives(schema: ModelSchema, root: ModelSchema) -> Iterator[ModelSchema]:
    """The schemas that a value may have, with references resolved."""
    if "$ref" in schema:
        yield from _alternatives(_target(schema, root), root)
    elif options := schema.get("anyOf") or schema.get("oneOf"):
        for option in options:
            yield from _alternatives(option, root)
    else:
        yield schema


def _target(schema: ModelSchema, root: ModelSchema) -> ModelSchema:
    return root["$defs"][schema["$ref"].rsplit("/", 1)[1]]


def _entries(schema: ModelSchema, part: str | int) -> Iterator[ModelSchema]:
    """The schema of one entry of a list or a map; nothing if there is none."""
    entry = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
    if isinstance(entry, Mapping):
        yield entry


def _first_sentence(field: ModelSchema, root: ModelSchema) -> str:
    text = field.get("description") or ("$ref" in field and _target(field, root).get("description")) or ""
    return " ".join(text.split()).split(". ")[0].rstrip(".")
