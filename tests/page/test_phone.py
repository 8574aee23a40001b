"""A real `openseer serve` with scripted engines, viewed on a phone with a keyboard only."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.server import Server
from tests.e2e.workbench import Workbench, workbench_in
from tests.page.browsing import expect
from tests.page.for_everyone import assert_axe_finds_nothing_serious, assert_nothing_is_wider_than_the_window
from tests.page.pictures import picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.redis, pytest.mark.slow]

WITHIN = 30_000
"""Milliseconds for what a busy machine shows late."""
MOST_TABS = 40


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with workbench_in(tmp_path) as bench:
        yield bench


@pytest.fixture
def phone(chromium: "Browser") -> "Iterator[Page]":
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark", reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


def serving(bench: Workbench) -> Server:
    """Two workers with four responses each that run for minutes."""
    server = Server(bench)
    server.write(sampling={"maxTokens": 30_000, "minTokens": 30_000})
    server.start()
    server.until_ready()
    server.call("submit", server.prompts(6))
    return server


def opened(page: "Page", link: "Locator") -> None:
    """Moves to a link by Tab and opens it by Enter."""
    expect(link).to_be_visible(timeout=WITHIN)
    for _ in range(MOST_TABS):
        if link.evaluate("one => one === document.activeElement"):
            page.keyboard.press("Enter")
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{MOST_TABS} times Tab do not lead to {link}")


def looked_at(page: "Page", name: str, sign: "Locator") -> None:
    """Asserts that the view is shown, fits the window and is accessible."""
    expect(sign).to_be_visible(timeout=WITHIN)
    assert_nothing_is_wider_than_the_window(page)
    assert_axe_finds_nothing_serious(page)
    picture(page, f"phone-{name}")


def test_every_view_of_a_real_server_is_reached_and_used_on_a_phone(bench: Workbench, phone: "Page") -> None:
    server = serving(bench)
    phone.goto(f"{server.url}/page/")
    looked_at(phone, "login", phone.get_by_role("heading", name="Log in"))
    phone.keyboard.insert_text(server.token_file.read_text().strip())
    phone.keyboard.press("Enter")

    job = phone.get_by_role("link", name="default/bench").first
    looked_at(phone, "jobs", job)
    opened(phone, job)
    looked_at(phone, "job", phone.get_by_role("slider", name=re.compile("^worker-1: ")))
    opened(phone, phone.get_by_role("region", name="Table of batches").get_by_role("link", name="1", exact=True))
    groups = phone.get_by_role("slider", name=re.compile("^Groups: "))
    looked_at(phone, "batch", groups)
    groups.press("Home")
    groups.press("Enter")
    ribbons = phone.get_by_role("slider", name=re.compile("^Responses over"))
    looked_at(phone, "group", ribbons)
    ribbons.press("ArrowDown")
    ribbons.press("Enter")
    looked_at(phone, "response", phone.get_by_role("slider", name=re.compile("^The .* tokens of the response")))
    opened(phone, phone.get_by_role("navigation", name="Breadcrumbs").get_by_role("link").first)
    expect(phone.get_by_role("region", name="Workers and their requests")).to_be_visible(timeout=WITHIN)
