"""docs/manifest.md: the fields of a RolloutJob, from the CRD."""

from typing import Any

from tests.contract.pages.fields import HEAD, rows
from tests.contract.pages.marked import cell


def sections(schema: dict[str, Any], path: str) -> str:
    """The object at a path with its fields and rules, then each object in it."""
    anchor = f"## {path}\n\n{schema.get('description', '')}\n\n"
    rules = [f"* {cell(rule['message'])}\n" for rule in schema.get("x-kubernetes-validations", []) if "message" in rule]
    text = anchor + HEAD + rows(schema, str) + "\n" + ("".join(rules) + "\n" if rules else "")
    for name, part in schema["properties"].items():
        below, mark = (part.get("items", {}), "[]") if part.get("type") == "array" else (part, "")
        if below.get("properties"):
            text += sections(below, f"{path}.{name}{mark}")
    return text
