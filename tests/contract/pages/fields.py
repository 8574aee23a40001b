"""JSON schemas as tables of fields, for people: of the API's models and of the CRD."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.contract.pages.marked import cell

HEAD = "| field | type | default | what |\n|---|---|---|---|\n"
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
SIZES = {
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "minLength": "{} characters or more",
    "maxLength": "at most {} characters",
    "maxProperties": "at most {} entries",
}
Named = Callable[[str], str]
"""Renders a model's name, plain or as a link."""


def rows(schema: dict[str, Any], named: Named) -> str:
    """The table rows of an object's fields."""
    required = schema.get("required", [])
    found = ""
    for name, part in schema.get("properties", {}).items():
        default = "required" if name in required else shown(part["default"]) if part.get("default") is not None else ""
        found += f"| `{name}` | {kind(part, named)} | {default} | {cell(part.get('description', ''))} |\n"
    return found


def kind(part: dict[str, Any], named: Named) -> str:
    """The type of a value with its limits, in a few words."""
    if "$ref" in part:
        return named(part["$ref"].rpartition("/")[2])
    if "const" in part:
        return shown(part["const"])
    if "enum" in part:
        return " · ".join(shown(value) for value in part["enum"])
    choices = [one for key in ("anyOf", "oneOf") for one in part.get(key, []) if _says_a_type(one)]
    if choices:
        return " or ".join(kind(one, named) for one in choices if one.get("type") != "null")
    if part.get("x-kubernetes-int-or-string"):
        return "integer or string"
    return ", ".join([_word(part, named), *limits(part)])


def _says_a_type(choice: dict[str, Any]) -> bool:
    return bool({"type", "$ref", "enum", "const"} & set(choice))


def _word(part: dict[str, Any], named: Named) -> str:
    word = part.get("type", "any")
    if word == "array":
        of = kind(part.get("items", {}), named)
        return f"list of ({of})" if ", " in of else f"list of {of}"
    more: Any = part.get("additionalProperties")
    if word == "object" and more and more is not True:
        return f"object of {kind(more, named)}"
    return word


def limits(part: dict[str, Any]) -> Iterator[str]:
    """The limits of a value, in words."""
    strict = {"minimum": part.get("exclusiveMinimum") is True, "maximum": part.get("exclusiveMaximum") is True}
    for key, text in (BOUNDS | SIZES).items():
        value = part.get(key)
        if value is None or isinstance(value, bool):
            continue
        if value == 1 and key in ("minLength", "minItems"):
            yield "not empty"
            continue
        words = text.replace("≥", ">").replace("≤", "<") if strict.get(key) else text
        yield cell(words.format(f"{int(value):,}" if value == int(value) else value))
    if "pattern" in part:
        yield f"matches {shown_text(part['pattern'])}"


def shown(value: Any) -> str:
    """A value as JSON, in code."""
    return shown_text(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))


def shown_text(text: str) -> str:
    """A text as code in a table cell."""
    return f"`{text}`".replace("|", "\\|")
