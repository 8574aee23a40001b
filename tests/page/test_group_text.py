"""A group's text is assembled from pieces, also over lost connections."""

import re
from typing import TYPE_CHECKING

from tests.page.browsing import expect
from tests.page.conftest import Site
from tests.page.played_fleet import Request, tokens_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

WITHIN = 30_000
"""Milliseconds: a connection is made anew after half a second, then after twice as long."""


def text_of(request: Request) -> str:
    return "".join(tokens_of(request, 0, int(request.done))[1])


def test_responses_stand_side_by_side_with_all_their_tokens(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math/batch/3/group/q1")
    page.get_by_role("button", name="Beginning").click()
    columns = page.locator(".column")
    expect(columns.first).to_contain_text("response 0")
    for index in range(2):
        begin = text_of(site.played.fleet.groups["q1"][index])[:200]
        assert columns.nth(index).locator(".text").inner_text().startswith(begin[:100])
    expect(page.get_by_text(re.compile(r"all begin with the same \d+ tokens"))).to_be_visible()
    assert columns.first.locator(".prefix").count() > 0
    assert columns.first.locator(".shared").count() > 0
    assert columns.first.locator(".shade3").count() > 0


def test_a_response_grows_without_gap_over_a_lost_connection(page: "Page", site: Site) -> None:
    fleet = site.played.fleet
    request = next(r for r in fleet.requests if r.state == "running")
    request.length = 4000
    page.goto(f"{site.url}#/job/team-a/math/batch/3/group/{request.group}/{request.index}")
    blocks = page.locator(".blocks")
    expect(blocks).to_be_visible()
    site.stop()
    fleet.step(5)
    site.start()
    known = int(request.done)
    tokens = page.locator(".figure .value").first
    page.wait_for_function(
        "([at, least]) => Number(at.textContent.replace(',', '')) > least", arg=[tokens.element_handle(), known]
    )
    expect(page.get_by_role("alert")).to_have_count(0)
    first = page.locator(".block .text").first.text_content()
    assert first == "".join(tokens_of(request, 0, min(256, int(request.done)))[1])


def test_a_long_response_of_an_ended_run_is_loaded_over_several_streams(page: "Page", site: Site) -> None:
    request = next(r for r in site.played.fleet.requests if r.state == "ok" and r.length > 60)
    site.played.most_tokens = request.length // 2
    page.goto(f"{site.url}#/job/team-a/ended/batch/3/group/{request.group}/{request.index}")
    words = f"The {request.length:,} tokens of the response"
    expect(page.get_by_role("slider", name=words)).to_be_visible(timeout=WITHIN)
    expect(page.get_by_text("have come")).to_have_count(0)
    first = page.locator(".block .text").first.text_content()
    assert first == "".join(tokens_of(request, 0, min(256, request.length))[1])


def test_a_token_shows_its_probability_and_its_worker(page: "Page", site: Site) -> None:
    request = next(r for r in site.played.fleet.requests if r.state == "ok" and r.length > 60)
    page.goto(f"{site.url}#/job/team-a/math/batch/3/group/{request.group}/{request.index}")
    ribbon = page.get_by_role("slider", name=re.compile("^The .* tokens of the response"))
    ribbon.press("Home")
    ribbon.press("ArrowRight")
    expect(ribbon).to_have_attribute(
        "aria-valuetext", re.compile(r"^token 1: .* · probability .* % · worker-\d, weights step-3")
    )
    expect(page.locator(".chosen")).to_have_attribute("data-token", "1")


def test_log_probabilities_stay_when_a_view_brings_no_tokens(page: "Page", site: Site) -> None:
    request = next(r for r in site.played.fleet.requests if r.state == "ok")
    page.goto(f"{site.url}#/job/team-a/math/batch/3/group/{request.group}/{request.index}")
    mean = page.locator(".figure", has_text="mean probability")
    expect(mean).to_contain_text("%")
    page.wait_for_timeout(500)
    expect(mean).to_contain_text("%")


def test_chunks_are_a_table_of_workers_and_tokens(page: "Page", site: Site) -> None:
    request = next(r for r in site.played.fleet.requests if r.state == "ok")
    page.goto(f"{site.url}#/job/team-a/math/batch/3/group/{request.group}/{request.index}")
    rows = page.get_by_role("region", name="Table of chunks").get_by_role("row")
    expect(rows).to_have_count(1 + len(request.chunks))
    expect(rows.last).to_contain_text("complete")
