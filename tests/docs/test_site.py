"""The site builds without a broken link, loads nothing from elsewhere, and its contents name every page."""

import re
import tomllib
from pathlib import Path

import pytest

from docs.site.build import CONTENTS, FIRST, build
from tests.docs.pages import PAGES, named
from tests.repository import ROOT

BUILT = sorted(
    page for page in PAGES if page.parent in (ROOT / "docs", ROOT / "docs/decisions") or named(page) in FIRST
)
LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]* src="(https?:[^"]*)"|<link[^>]* href="(https?:[^"]*)"[^>]*rel="?stylesheet'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML of all pages; a broken link or anchor ends the build."""
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder / "html"


def test_every_page_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in BUILT:
        name = named(page).removesuffix(".md").removesuffix("README")
        text = (site / name / "index.html").read_text(encoding="utf-8")
        assert LOADED.findall(text) == []
        assert 'class="mermaid"' not in text  # it needs a script from another host


def test_the_contents_name_every_page_but_single_decisions() -> None:
    contents = tomllib.loads(CONTENTS.read_text(encoding="utf-8"))["project"]["nav"]
    listed = re.findall(r"[\w./-]+\.md", str(contents))
    assert sorted(listed) == sorted(named(page) for page in BUILT if not page.name[0].isdigit())
