"""Checks of every view at any width: accessibility, and no content wider than the window."""

import json
from importlib import resources
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def assert_axe_finds_nothing_serious(page: "Page") -> None:
    """Runs axe-core on the page's present state."""
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python, which has axe-core, is not installed")
    page.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"][:3]], each["nodes"][0]["failureSummary"])
        for each in found
        if each["impact"] in SERIOUS
    ]
    assert serious == [], json.dumps(serious, indent=1)


def assert_nothing_is_wider_than_the_window(page: "Page") -> None:
    """Asserts that the page does not scroll horizontally."""
    assert page.evaluate(TOO_WIDE) == 0
