"""JSON schemas without the parts that only people read: class names, titles and descriptions."""

from typing import Any, Literal

from pydantic import BaseModel

_FOR_PEOPLE = frozenset({"title", "description", "summary", "operationId", "examples", "tags", "x-allowed"})
_NAMED_PARTS = ("properties", "patternProperties", "$defs", "dependentSchemas")
_VALUES = ("default", "const", "enum")


def bare_schema(model: type[BaseModel], mode: Literal["validation", "serialization"]) -> Any:
    """The schema of a model's JSON without references: fields by their aliases, types, defaults and limits."""
    schema = model.model_json_schema(by_alias=True, mode=mode)
    return bare(schema, {f"#/$defs/{name}": part for name, part in schema.get("$defs", {}).items()})


def bare(schema: Any, parts: dict[str, Any]) -> Any:
    """A schema with each reference replaced by its part. `parts`: the parts by reference."""
    if isinstance(schema, list):
        entries: list[Any] = schema  # pyright: ignore[reportUnknownVariableType]
        return [bare(entry, parts) for entry in entries]
    if not isinstance(schema, dict):
        return schema
    fields: dict[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    if "$ref" in fields:
        beside = {name: value for name, value in fields.items() if name != "$ref"}
        return bare(parts[fields["$ref"]], parts) | bare(beside, parts)
    return {name: _part(name, value, parts) for name, value in fields.items() if _is_kept(name)}


def _is_kept(name: str) -> bool:
    return name not in _FOR_PEOPLE and name != "$defs"


def _part(name: str, value: Any, parts: dict[str, Any]) -> Any:
    if name in _VALUES:
        return value
    if name in _NAMED_PARTS:
        return {field: bare(entry, parts) for field, entry in value.items()}
    if name == "discriminator":
        return {"propertyName": value["propertyName"], "values": sorted(value.get("mapping", {}))}
    plain = bare(value, parts)
    # In a parameter, `required` is a boolean.
    return sorted(plain) if name == "required" and not isinstance(plain, bool) else plain
