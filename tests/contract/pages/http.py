"""docs/http.md: the routes and models of the API, from its OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from tests.contract.pages.fields import HEAD, kind, rows
from tests.contract.pages.marked import cell

ANSWERS_TO_ALL = ("401", "403", "404", "422", "503")
"""Statuses of problems that any call may return; the page explains them once."""


def routes(document: dict[str, Any]) -> str:
    """A section for each route, under its tag."""
    text, last = "", ""
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            [tag] = call["tags"]
            text += f"## Routes: {tag}\n\n" * (tag != last)
            last = tag
            text += f"### {method.upper()} {path}\n\n{call.get('description', '')}\n\n"
            text += "".join(f"* {line}\n" for line in told(call)) + "\n"
    return text


def told(call: dict[str, Any]) -> Iterator[str]:
    """One line for each parameter, body and answer of a call."""
    for one in call.get("parameters", []):
        if one["in"] == "path":
            continue
        default = one["schema"].get("default")
        place = "required" if one["required"] else f"default `{default}`" if default is not None else "optional"
        said = one.get("description") or one["schema"].get("description") or ""
        yield f"{one['in']} `{one['name']}`: {kind(one['schema'], linked)}; {place}{'. ' if said else ''}{cell(said)}"
    if "requestBody" in call:
        yield f"body: {content(call['requestBody'])}"
    for status, answer in sorted(call["responses"].items()):
        if status < "300":
            yield f"answers {status}: {content(answer)}"
    other = [status for status in call["responses"] if status >= "300" and status not in ANSWERS_TO_ALL]
    if other:
        yield f"also refuses with {', '.join(sorted(other))}"


def content(what: dict[str, Any]) -> str:
    """The type of a body, by media type."""
    found: list[str] = []
    for media, one in what.get("content", {}).items():
        schema = one.get("schema", {})
        names = ", ".join(f"`{name}`: {kind(part, linked)}" for name, part in schema.get("properties", {}).items())
        found.append((f"{{ {names} }}" if names else kind(schema, linked) if schema else "") + f" as `{media}`")
    return "; or ".join(found) or "nothing"


def models(document: dict[str, Any]) -> str:
    """A table for each model."""
    text = ""
    for name, schema in sorted(document["components"]["schemas"].items()):
        text += f"### {name}\n\n{schema.get('description', '')}\n\n"
        text += f"{HEAD}{rows(schema, linked)}\n" if schema.get("properties") else ""
    return text


def linked(name: str) -> str:
    """The link to a model on the page."""
    return f"[{name}](#{name.lower()})"
