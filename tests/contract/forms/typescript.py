"""The page's views as TypeScript types, made from the same models that the API sends."""

from typing import Any, cast

from pydantic.json_schema import models_json_schema

from openseer_core.wire import page

VIEWS = (page.JobCards, page.JobView, page.JobPulse, page.Explained, page.BatchView, page.GroupPage, page.PageProblem)
LIMITS = ("WINDOW_SECONDS",)
PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def page_types() -> str:
    """The text of page/src/wire.ts."""
    _, schema = models_json_schema([(view, "serialization") for view in VIEWS])
    lines = [
        "// Types of the server's replies, made from core/openseer_core/wire/page.py, which describes each field.",
        "// `OPENSEER_REWRITE=1 pytest tests/contract/test_page_types.py` rewrites this file.",
    ]
    for name in LIMITS:
        lines += ["", f"export const {name} = {getattr(page, name):g};"]
    for name, definition in schema["$defs"].items():
        if "properties" not in definition:
            lines += ["", f"export type {name} = {_type(definition)};"]
            continue
        lines += ["", f"export interface {name} {{"]
        lines += [f"  {field}: {_type(form)};" for field, form in definition["properties"].items()]
        lines += ["}"]
    return "\n".join(lines) + "\n"


def _type(form: dict[str, Any]) -> str:
    if "$ref" in form:
        return form["$ref"].rpartition("/")[2]
    if "const" in form:
        return f'"{form["const"]}"'
    if "enum" in form:
        return " | ".join(f'"{word}"' for word in form["enum"])
    if "anyOf" in form:
        return " | ".join(_type(choice) for choice in form["anyOf"])
    match form.get("type"):
        case "array":
            inner = _type(form["items"])
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case "object":
            return f"Record<string, {_type(cast('dict[str, Any]', form['additionalProperties']))}>"
        case None:
            return "unknown"  # any JSON value
        case kind:
            return PLAIN[kind]
