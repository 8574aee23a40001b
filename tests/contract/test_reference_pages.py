"""The references in docs/ match the code: HTTP, client, manifest, command line."""

import json
import os
import re
import tomllib
from typing import Any

import typer.main
import yaml

from openseer_local.main import app as command_line
from tests.contract.pages import client, command, http, manifest, store
from tests.contract.pages.marked import REWRITE, cell, holds
from tests.contract.test_client import ADAPTERS
from tests.contract.test_routes import app
from tests.repository import ROOT

DOCUMENT = ROOT / "docs" / "openapi.json"


def document() -> dict[str, Any]:
    """The OpenAPI document with its models sorted by name; FastAPI's order depends on imports."""
    made = app().openapi()
    schemas = made["components"]["schemas"]
    made["components"]["schemas"] = {name: schemas[name] for name in sorted(schemas)}
    return made


def test_the_committed_document_equals_the_served_one() -> None:
    made = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("OPENSEER_REWRITE"):
        DOCUMENT.write_text(made, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == made, f"docs/openapi.json differs from the code: {REWRITE}"


def test_the_page_of_http_has_every_route_and_model() -> None:
    holds("http.md", {"routes": http.routes(document()), "models": http.models(document())})


def test_the_page_of_the_client_has_every_export() -> None:
    made = {"classes": client.classes(), "models": client.models(), "errors": client.errors()}
    holds("client.md", {**made, "adapters": client.adapters(ADAPTERS)})


def test_the_page_of_the_manifest_has_every_field() -> None:
    crd = yaml.safe_load((ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8"))
    fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    holds("manifest.md", {part: manifest.sections(fields[part], part) for part in ("spec", "status")})


def test_the_page_of_the_command_has_every_option() -> None:
    holds("cli.md", {"options": command.options(typer.main.get_command(command_line))})


def test_the_page_of_the_store_has_every_verb_and_key() -> None:
    holds("store.md", {"verbs": store.verbs(), "keys": store.keys()})


def test_the_list_of_decisions_has_each_with_its_status() -> None:
    made = "| | decision | status |\n|---|---|---|\n"
    for page in sorted((ROOT / "docs/decisions").glob("0*.md")):
        found = re.match(r"# (\d{4}): (.+)\n\nStatus: ((?:.+\n)+)\n", page.read_text(encoding="utf-8"))
        assert found, f"{page.name} does not begin with `# NUMBER: title` and `Status: …`"
        number, title, status = found.groups()
        made += f"| {number} | [{cell(title)}]({page.name}) | {cell(status)} |\n"
    holds("decisions/README.md", {"decisions": made})


def test_each_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    needed = {re.split(r"[\[<>=;~! ]", one)[0] for group in groups for one in group} - {"openseer"}
    page = (ROOT / "docs/decisions/0001-dependencies.md").read_text(encoding="utf-8").lower()
    assert sorted(name for name in needed if re.sub(r"-(non-)?cuda\d*$", "", name) not in page) == []
