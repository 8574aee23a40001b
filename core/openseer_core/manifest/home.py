"""Expands a leading ~, the home folder, in the paths of a manifest."""

from collections.abc import Mapping
from typing import Any, cast

_PATHS = (("model", "path"), ("model", "tokenizer"), ("prompts", "path"), ("output", "path"))


def at_home(document: Any, home: str | None) -> Any:
    """The document with `home` for a leading ~ in paths and engine arguments; unchanged if `home` is None."""
    spec = _map(document, "spec")
    if home is None or spec is None:
        return document
    parts = dict(spec)
    for part, name in _PATHS:
        if (found := _map(parts, part)) is not None and name in found:
            parts[part] = {**found, name: _expanded(found[name], home)}
    model = _map(parts, "model")
    if model is not None and (arguments := _map(model, "engineArgs")) is not None:
        expanded = {name: _expanded(value, home) for name, value in arguments.items()}
        parts["model"] = {**model, "engineArgs": expanded}
    return {**document, "spec": parts}


def _map(parent: Any, name: str) -> Mapping[str, Any] | None:
    found = cast("Mapping[str, Any]", parent).get(name) if isinstance(parent, Mapping) else None
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else None


def _expanded(value: Any, home: str) -> Any:
    if isinstance(value, str) and (value == "~" or value.startswith("~/")):
        return home.rstrip("/") + value[1:]
    return value
