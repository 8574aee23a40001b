"""Code in pages parses and imports existing names; manifests are valid. tests/client runs the trainers' snippets."""

import ast
import importlib
from importlib.util import find_spec
from typing import Any

import pytest
import yaml

from openseer_core.manifest.parse import parse_job
from tests.docs.pages import Block, blocks, named

PYTHON = blocks("python")
WHOLE: dict[str, Any] = {
    "apiVersion": "openseer.dev/v1alpha1",
    "kind": "RolloutJob",
    "metadata": {"name": "any"},
    "spec": {"prompts": {"path": "prompts.jsonl"}},
}
"""The manifest into which a fragment of a page is merged."""
SLOW = ("torch", "trl", "verl", "vllm", "nemo_rl", "transformers")
"""Modules that take seconds to import or are not installed: names imported from them are not checked."""


def told(block: Block) -> str:
    first = block.text.strip().splitlines()[0]
    return f"{named(block.page)}: {first[:40]}"


@pytest.mark.parametrize("block", PYTHON, ids=told)
def test_python_parses_and_imports_existing_names(block: Block) -> None:
    found = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.ImportFrom)]
    for node in found:
        module = node.module or ""
        if module.startswith("openseer_") and not any(name in module for name in SLOW):
            assert [alias.name for alias in node.names if not _is_there(module, alias.name)] == []


def _is_there(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or find_spec(f"{module}.{name}") is not None


@pytest.mark.parametrize("block", blocks("yaml"), ids=told)
def test_yaml_parses_and_fragments_of_manifests_are_valid(block: Block) -> None:
    documents: list[Any] = list(yaml.safe_load_all(block.text))
    for document in documents:
        spec = document.get("spec") if document.keys() == {"spec"} else None
        if spec is None and document.get("kind") != "RolloutJob":
            continue
        whole = {**WHOLE, **document, "spec": {**WHOLE["spec"], **spec}} if spec is not None else document
        whole["spec"]["model"] = {"path": "/models/any", **whole["spec"].get("model", {})}
        assert parse_job(whole, named(block.page)).name
