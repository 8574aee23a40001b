"""The chart's own files agree with one another and with the project."""

import json
import tomllib
from collections.abc import Iterator
from typing import Any, cast

import yaml

from tests.repository import ROOT

CHART = ROOT / "charts" / "openseer"


def test_the_chart_has_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_the_schema_has_exactly_the_names_of_the_values() -> None:
    def names(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, below in schema.get("properties", {}).items():
            yield f"{path}{name}"
            yield from names(below, f"{path}{name}.")

    def keys(values: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, below in values.items():
            yield f"{path}{name}"
            if isinstance(below, dict) and name != "resources":
                yield from keys(cast("dict[str, Any]", below), f"{path}{name}.")

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(names(schema)) - {"global"} == set(keys(values))
