"""Links of all pages lead to files and headings that exist, as GitHub shows them."""

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, anchors, links, named
from tests.repository import ROOT


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    broken: list[str] = []
    for link in links(page):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        is_there = target.exists() and target.is_relative_to(ROOT)
        if is_there and link["anchor"]:
            is_there = target.suffix != ".md" or link["anchor"] in anchors(target)
        broken += [] if is_there else [link[0]]
    assert broken == []
