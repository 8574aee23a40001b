"""Accessibility of the page: keyboard, screen reader, dark theme, phone."""

from typing import TYPE_CHECKING, Any

import pytest

from tests.page.browsing import expect
from tests.page.conftest import Site
from tests.page.for_everyone import assert_axe_finds_nothing_serious, assert_nothing_is_wider_than_the_window
from tests.repository import SOAK

if TYPE_CHECKING:
    from playwright.sync_api import Page

VIEWS = {
    "jobs": "#/",
    "job": "#/job/team-a/math",
    "batch": "#/job/team-a/math/batch/3",
    "group": "#/job/team-a/math/batch/3/group/q1",
    "response": "#/job/team-a/math/batch/3/group/q1/1",
    "refused": "#/job/team-a/secret",
    "loading": "#/job/team-a/quiet",
    "ended": "#/job/team-a/ended",
    "empty": "#/job/team-a/empty",
    "login": "#/",
}
LOOKS = [("light", 1920), ("dark", 390), *([("light", 390), ("dark", 1920)] if SOAK else [])]
"""Each scheme and each width once; in full all pairs."""


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_serious_problem(page: "Page", site: Site, view: str, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    if view == "login":
        page.context.clear_cookies()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(site.url + VIEWS[view])
    page.wait_for_timeout(400)
    assert_axe_finds_nothing_serious(page)


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_a_phone(page: "Page", site: Site, view: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(site.url + VIEWS[view])
    page.wait_for_timeout(400)
    assert_nothing_is_wider_than_the_window(page)


def test_the_theme_is_chosen_and_kept(page: "Page", site: Site) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(site.url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    theme = page.get_by_role("button", name="theme; change it")
    theme.click()
    theme.click()
    expect(theme).to_contain_text("dark")
    dark = page.evaluate(ground)
    page.reload()
    expect(page.get_by_role("button", name="dark theme; change it")).to_be_visible()
    assert page.evaluate(ground) == dark != light


def test_every_control_is_reached_by_tab_with_a_visible_focus(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math/batch/3")
    expect(page.get_by_role("region", name="Table of running responses")).to_be_visible()
    reached: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "(() => { const one = document.activeElement, style = getComputedStyle(one);"
            " return [one.getAttribute('aria-label') || one.textContent.trim(), style.outlineStyle] })()"
        )
        reached.append(focus[0])
        assert focus[1] == "solid", focus[0]
    for name in ("Skip to the content", "openseer", "batch 3", "Log out", "Table of running responses"):
        assert name in reached
    assert any(name.startswith("Groups: ") for name in reached)


def test_reduced_motion_gives_still_lanes(page: "Page", site: Site) -> None:
    page.emulate_media(reduced_motion="reduce")
    site.played.seconds = 30.0
    page.goto(f"{site.url}#/job/team-a/math")
    lane = page.locator(".lane canvas").first
    expect(lane).to_be_visible()
    page.wait_for_timeout(300)
    before = lane.evaluate("canvas => canvas.toDataURL()")
    page.wait_for_timeout(1_000)
    assert lane.evaluate("canvas => canvas.toDataURL()") == before
