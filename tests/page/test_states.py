"""The page's states without data, with old data, and with errors."""

import re
from typing import TYPE_CHECKING

import pytest

from tests.page.browsing import expect
from tests.page.conftest import Site
from tests.page.played_server import TOKEN

if TYPE_CHECKING:
    from playwright.sync_api import Page

HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_without_a_login_only_the_form_is_shown(page: "Page", site: Site) -> None:
    page.context.clear_cookies()
    page.goto(f"{site.url}#/job/team-a/math")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    expect(page.get_by_text("worker-0")).to_have_count(0)
    expect(page.get_by_text("kubectl create token")).to_be_visible()


def test_a_wrong_token_is_reported_and_a_valid_one_opens_the_page(page: "Page", site: Site) -> None:
    page.context.clear_cookies()
    page.goto(site.url)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("the token is not one of this server's")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Token").press("Enter")
    expect(page.get_by_role("article", name="team-a/math")).to_be_visible()
    assert TOKEN not in page.url
    assert TOKEN not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


@pytest.mark.parametrize(
    ("job", "title", "advice"),
    [
        ("secret", "No permission", "viewer may not get batches in team-a"),
        ("gone", "Not found", "there is no job team-a/gone"),
        ("down", "No answer at the moment", "The page keeps trying"),
    ],
)
def test_a_refusal_is_shown_with_the_remedy(page: "Page", site: Site, job: str, title: str, advice: str) -> None:
    page.goto(f"{site.url}#/job/team-a/{job}")
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text(advice)
    expect(page.get_by_role("alert").get_by_role("link", name="All jobs")).to_be_visible()


def test_an_unknown_address_links_back(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math/lot/3")
    expect(page.get_by_role("heading", name="No such view")).to_be_visible()
    page.goto(f"{site.url}#/job/%E0%A4%A/math")
    expect(page.get_by_role("heading", name="No such view")).to_be_visible()


def test_a_placeholder_is_shown_before_the_first_view(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/quiet")
    expect(page.get_by_role("status", name="Loading the job team-a/quiet")).to_be_visible()


def test_missing_jobs_and_workers_are_reported(page: "Page", site: Site) -> None:
    site.played.no_jobs = True
    page.goto(site.url)
    expect(page.get_by_role("heading", name="No jobs")).to_be_visible()
    page.goto(f"{site.url}#/job/team-a/empty")
    expect(page.get_by_text("No worker has sent a heartbeat yet.")).to_be_visible()
    expect(page.get_by_text("No batch yet. The trainer opens the first batch")).to_be_visible()


def test_an_old_view_stays_with_its_time(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    expect(page.get_by_text("4/4", exact=True)).to_be_visible()
    site.played.silent = True
    banner = page.locator(".banner")
    expect(banner).to_contain_text(re.compile(r"No update since \d\d:\d\d:\d\d"), timeout=8_000)
    expect(page.get_by_text("4/4", exact=True)).to_be_visible()
    site.played.silent = False
    expect(banner).to_have_count(0)


def test_an_unchanged_view_is_not_marked_as_old(page: "Page", site: Site) -> None:
    site.played.no_jobs = True
    page.goto(site.url)
    expect(page.get_by_role("heading", name="No jobs")).to_be_visible()
    page.wait_for_timeout(6_000)
    expect(page.locator(".banner")).to_have_count(0)


def test_a_restarted_server_is_found_again(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    expect(page.get_by_text("4/4", exact=True)).to_be_visible()
    site.stop()
    expect(page.locator(".banner")).to_contain_text("The server does not answer.", timeout=8_000)
    site.start()
    expect(page.locator(".banner")).to_have_count(0, timeout=20_000)


def test_an_ended_run_is_shown_as_ended_and_not_read_again(page: "Page", site: Site) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    page.goto(f"{site.url}#/job/team-a/ended")
    expect(page.get_by_text("This run has ended")).to_be_visible()
    expect(page.get_by_text("4 workers, the whole run: ")).to_be_visible()
    page.wait_for_timeout(6_000)
    assert [one.rpartition("/")[2] for one in asked] == ["ended", "explained"]
    expect(page.locator(".banner")).to_have_count(0)


def test_a_hidden_page_reads_nothing(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    expect(page.get_by_text("4/4", exact=True)).to_be_visible()
    expect_streams(page, site, 2)
    page.evaluate(HIDE, True)
    expect_streams(page, site, 0)
    page.evaluate(HIDE, False)
    expect_streams(page, site, 2)


def test_navigation_between_views_leaves_one_stream_open(page: "Page", site: Site) -> None:
    page.goto(site.url)
    for place in ("#/job/team-a/math", "#/job/team-a/math/batch/3", "#/job/team-a/math/batch/3/group/q1", "#/"):
        page.evaluate("place => { location.hash = place }", place)
        page.wait_for_timeout(300)
    expect(page.get_by_role("article", name="team-a/math")).to_be_visible()
    expect_streams(page, site, 1)


def expect_streams(page: "Page", site: Site, number: int) -> None:
    for _ in range(50):
        if site.played.streams == number:
            return
        page.wait_for_timeout(100)
    assert site.played.streams == number
