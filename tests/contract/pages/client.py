"""docs/client.md: the exports of `openseer_client`, from signatures and docstrings."""

import ast
import dataclasses
import inspect
import re
from typing import Any

from pydantic import BaseModel

import openseer_client
from openseer_core.errors import OpenseerError
from tests.contract.pages.fields import HEAD, rows
from tests.contract.pages.marked import cell
from tests.repository import ROOT

MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])|['~]")
"""The parts of a signature's text that are no type names: module names and quotation marks."""
ERROR_HEAD = "| error | caught as | exit code | tried again | when |\n|---|---|---|---|---|\n"


def kinds() -> dict[str, Any]:
    """The exported objects by name."""
    return {name: getattr(openseer_client, name) for name in sorted(openseer_client.__all__)}


def classes() -> str:
    """A section for each class that is neither a model nor an error: clients, batches and others."""
    made = ""
    for name, kind in kinds().items():
        if not issubclass(kind, BaseModel | Exception):
            made += f"### {name}\n\n`{name}{signature(kind)}`\n\n{doc(kind)}\n\n{methods(kind)}\n"
    return made


def models() -> str:
    """A section with a table for each model of a request or a reply."""
    made = ""
    for name, kind in kinds().items():
        if issubclass(kind, BaseModel):
            made += f"### {name}\n\n{doc(kind)}\n\n{HEAD}{rows(kind.model_json_schema(by_alias=True), linked)}\n"
    return made


def errors() -> str:
    """The table of errors."""
    made = ERROR_HEAD
    exported = kinds()
    for name, kind in exported.items():
        if issubclass(kind, OpenseerError):
            bases = [base.__name__ for base in kind.__mro__[1:] if base.__name__ in exported]
            again = "yes" if kind.retryable else "no"
            made += f"| `{name}` | {', '.join(bases)} | {kind.exit_code} | {again} | {cell(doc(kind))} |\n"
    return made


def adapters(names: tuple[str, ...]) -> str:
    """The table of modules that are imported by name. Their source is read: an import would need torch."""
    made = "| module | what |\n|---|---|\n"
    for name in names:
        text = (ROOT / "api/openseer_client" / f"{name}.py").read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
        made += f"| `openseer_client.{name}` | {cell(first)} |\n"
    return made


def methods(kind: Any) -> str:
    """Public methods and properties, in the order of the source, inherited ones first."""
    made = ""
    for name, member in members(kind).items():
        if isinstance(member, property):
            made += f"* `{name}`: {doc(member)}\n"
        elif callable(member):
            made += f"* `{name}{signature(member)}`: {doc(member)}\n"
    return made


def members(kind: Any) -> dict[str, Any]:
    """The public members with a docstring, of openseer's own classes."""
    found: dict[str, Any] = {}
    bases: list[type] = [base for base in reversed(kind.__mro__) if base.__module__.startswith("openseer_")]
    for base in bases:
        found |= {name: member for name, member in vars(base).items() if name[0] != "_" and doc(member)}
    return found


def signature(call: Any) -> str:
    """Parameters and return type, without module names."""
    given = inspect.signature(call)
    parameters = [one for one in given.parameters.values() if one.name != "self"]
    if dataclasses.is_dataclass(call):
        given = given.replace(return_annotation=inspect.Signature.empty)
    return MODULES.sub("", str(given.replace(parameters=parameters))).removesuffix(" -> None")


def doc(thing: Any) -> str:
    """The docstring of an object, in one line."""
    return " ".join((inspect.getdoc(thing) or "").split())


def linked(name: str) -> str:
    """The link to a model: on this page if it is exported, otherwise on the page of the API."""
    return f"[{name}]({'' if name in openseer_client.__all__ else 'http.md'}#{name.lower()})"
