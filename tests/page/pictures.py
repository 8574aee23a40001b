"""Pictures of what tests see: with OPENSEER_PAGE_PICTURES=FOLDER they are written there."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = os.environ.get("OPENSEER_PAGE_PICTURES")
SETTLED = 2_500
"""Milliseconds until what moves has something to show."""


def picture(page: "Page", name: str) -> None:
    """Writes the whole view as it is now."""
    if FOLDER:
        page.wait_for_timeout(SETTLED)
        page.screenshot(path=f"{FOLDER}/{name}.png", full_page=True)
