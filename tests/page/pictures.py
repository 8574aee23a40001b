"""Screenshots of tests, written to FOLDER with OPENSEER_PAGE_PICTURES=FOLDER."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = os.environ.get("OPENSEER_PAGE_PICTURES")
SETTLED = 2_500
"""Milliseconds until what moves has something to show."""


def picture(page: "Page", name: str) -> None:
    """Writes a screenshot of the whole view."""
    if FOLDER:
        page.wait_for_timeout(SETTLED)
        page.screenshot(path=f"{FOLDER}/{name}.png", full_page=True)
