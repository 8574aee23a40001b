"""docs/manifest.md: the fields of a RolloutJob, from the CRD."""

import re
from typing import Any

from tests.contract.pages.fields import HEAD, rows
from tests.contract.pages.marked import cell


def sections(schema: dict[str, Any], path: str) -> str:
    """The object at a path with its fields and rules, then each object in it."""
    below = {name: place for name, part in schema["properties"].items() if (place := _below(part, f"{path}.{name}"))}
    rules = [f"* {cell(rule['message'])}\n" for rule in schema.get("x-kubernetes-validations", []) if "message" in rule]
    text = f"## {path}\n\n{schema.get('description', '')}\n\n" + HEAD + rows(_with_links(schema, below), linked) + "\n"
    text += "".join(rules) + "\n" if rules else ""
    return text + "".join(sections(part, place) for part, place in below.values())


def _below(part: dict[str, Any], path: str) -> tuple[dict[str, Any], str] | None:
    """The object of a field, or of the entries of a list, with its path; None if it has no fields."""
    is_list = part.get("type") == "array"
    found = part.get("items", {}) if is_list else part
    return (found, f"{path}[]" if is_list else path) if found.get("properties") else None


def _with_links(schema: dict[str, Any], below: dict[str, tuple[dict[str, Any], str]]) -> dict[str, Any]:
    """The schema with a reference in place of each object that has a section."""
    fields = dict(schema["properties"])
    for name, (_, place) in below.items():
        reference = {"$ref": f"#/{place}"}
        is_list = place.endswith("[]")
        fields[name] = {**fields[name], **({"items": reference} if is_list else reference)}
    return {**schema, "properties": fields}


def linked(place: str) -> str:
    """The link to an object's section."""
    return f"[object](#{re.sub('[^a-z0-9]', '', place.lower())})"
