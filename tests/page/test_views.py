"""Each view shows a running fleet and links to the next view."""

import re
from typing import TYPE_CHECKING

from tests.page.browsing import expect
from tests.page.conftest import Site
from tests.page.played_fleet import Fleet

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PAINTED = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3]) seen.add(data.slice(at, at + 3).join());
  return seen.size;
}"""


def colours(canvas: "Locator") -> int:
    """Number of colours of a picture."""
    return int(canvas.evaluate(PAINTED))


def test_jobs_are_cards_with_the_reason_of_an_error(page: "Page", site: Site) -> None:
    page.goto(site.url)
    expect(page.get_by_role("heading", name="5 jobs")).to_be_visible()
    card = page.get_by_role("article", name="team-a/broken")
    expect(card).to_contain_text("mount it, or name another in spec.model.path")
    expect(card.locator(".pill")).to_have_text("failed")
    silent = page.get_by_role("article", name="team-b/silent")
    expect(silent).to_contain_text("the store does not answer: no data within 2 s")
    expect(silent).not_to_contain_text("workers")
    running = page.get_by_role("article", name="team-a/math")
    expect(running).to_contain_text("4/4")
    expect(running.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile(r"\d+ %"))


def test_a_response_can_be_reached_from_jobs_by_keyboard(page: "Page", site: Site) -> None:
    page.goto(site.url)
    page.get_by_role("link", name="team-a/math").press("Enter")
    expect(page.get_by_role("region", name="Workers and their requests")).to_be_visible()
    page.get_by_role("link", name="3", exact=True).press("Enter")
    groups = page.get_by_role("slider", name=re.compile("^Groups"))
    groups.press("Home")
    expect(groups).to_have_attribute("aria-valuetext", re.compile(r"^q\d+: \d of 8 done"))
    groups.press("Enter")
    ribbons = page.get_by_role("slider", name=re.compile("^Responses over"))
    ribbons.press("ArrowDown")
    ribbons.press("ArrowDown")
    expect(ribbons).to_have_attribute("aria-valuetext", re.compile("^response 1: "))
    ribbons.press("Enter")
    expect(page).to_have_url(re.compile(r"#/job/team-a/math/batch/3/group/q\d+/1$"))
    crumbs = page.get_by_role("navigation", name="Breadcrumbs").get_by_role("link")
    assert len(crumbs.all()) == 4
    crumbs.nth(1).click()
    expect(page.get_by_role("heading", name="Batch 3")).to_be_visible()


def test_a_lane_shows_the_leases_of_its_worker(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    lane = page.get_by_role("slider", name=re.compile("^worker-0: "))
    expect(lane).to_be_visible()
    page.wait_for_timeout(300)
    assert colours(lane) > 2
    lane.press("End")
    expect(lane).to_have_attribute("aria-valuetext", re.compile(r"^3/q\d+/\d: "))
    lane.press("Enter")
    expect(page).to_have_url(re.compile(r"/batch/3/group/q\d+/\d$"))


def test_a_killed_worker_is_named_within_two_seconds(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    expect(page.get_by_text("4/4", exact=True)).to_be_visible()
    site.played.fleet.silence("worker-2")
    trouble = page.get_by_role("list", name="Workers with problems")
    expect(trouble).to_contain_text("worker-2: no heartbeat for", timeout=2_000)
    expect(page.locator("[aria-live]").first).to_contain_text("worker-2 is silent")


def test_a_worker_missing_in_a_pulse_keeps_its_lane(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    expect(page.locator(".lane")).to_have_count(4)
    page.wait_for_timeout(500)
    expect(page.locator(".lane")).to_have_count(4)


def test_a_slow_worker_is_named_with_its_pace(page: "Page", site: Site) -> None:
    site.played.fleet.workers[1].speed = 12.0
    page.goto(f"{site.url}#/job/team-a/math")
    trouble = page.get_by_role("list", name="Workers with problems")
    expect(trouble).to_contain_text(
        re.compile(r"worker-1: slow: generates responses at 0\.\d+ of the other workers' pace")
    )
    expect(page.locator(".lane").nth(1)).to_contain_text(re.compile(r"slow: 0\.\d+ × the others’ pace"))
    found = page.get_by_role("list", name="What stands out")
    expect(found).to_contain_text(re.compile(r"worker-1 generates responses at 0\.\d+ of the other workers' pace"))
    expect(found).to_contain_text("check its node and GPU")


def test_a_job_shows_its_time_by_parts(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    panel = page.get_by_role("region", name="Where the time went")
    expect(panel).to_contain_text("Nothing stands out.")
    row = panel.get_by_role("row", name=re.compile("^decoding, all slots in use"))
    expect(row.get_by_role("cell").nth(1)).to_have_text("70.0 %")
    expect(panel.get_by_role("row", name=re.compile("^idle for other reasons"))).to_have_count(0)
    expect(panel).to_contain_text("The best time possible is not known: it is simulated after the end of the run")
    page.goto(f"{site.url}#/job/team-a/ended")
    expect(panel).to_contain_text(
        re.compile(r"with an oracle, .* The run took .*: 1\.11, 1\.18 and 1\.25 times as long")
    )


def test_a_weights_transaction_names_the_workers_that_it_waits_for(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math")
    weights = page.get_by_role("region", name="Weights")
    expect(weights.locator("[aria-current=step]")).to_contain_text("quiesce")
    expect(weights).to_contain_text("Waits for worker-0, worker-1")


def test_a_batch_shows_groups_lengths_estimates_and_tail(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math/batch/3")
    expect(page.get_by_role("slider", name=re.compile(r"^Groups: \d+ running"))).to_be_visible()
    page.wait_for_timeout(300)
    for name in ("^Groups", "^Histogram"):
        assert colours(page.get_by_role("slider", name=re.compile(name))) > 2
    assert colours(page.get_by_role("img", name=re.compile("over their lengths"))) > 2
    expect(
        page.get_by_text(re.compile("differ from the estimate by a factor of at most"), exact=False).last
    ).to_be_visible()
    rows = page.get_by_role("region", name="Table of running responses").get_by_role("row")
    assert rows.count() > 5


def test_a_pointer_shows_the_group_and_a_click_opens_it(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math/batch/3")
    groups = page.get_by_role("slider", name=re.compile("^Groups"))
    expect(groups).to_be_visible()
    groups.hover(position={"x": 8, "y": 30})
    said = page.get_by_role("region", name="Groups").locator(".readout")
    expect(said).to_have_text(re.compile(r"^q\d+: "))
    groups.click(position={"x": 8, "y": 30})
    expect(page).to_have_url(re.compile(r"/group/q\d+$"))


def test_numbers_are_updated_while_the_page_is_open(page: "Page", site: Site) -> None:
    page.goto(f"{site.url}#/job/team-a/math/batch/3")
    tokens = page.locator(".figure", has_text="tokens/s").first
    expect(tokens).to_be_visible()
    before = tokens.inner_text()
    expect(tokens).not_to_have_text(before, timeout=3_000)


def test_a_long_fleet_keeps_few_lanes_in_the_document(page: "Page", site: Site) -> None:
    site.played.large = Fleet(workers=300, slots=4, groups=50)
    page.goto(f"{site.url}#/job/team-a/large")
    expect(page.get_by_text("300 workers, the last 120 s")).to_be_visible()
    assert page.locator(".lane").count() < 30
    page.get_by_role("region", name="Workers", exact=True).evaluate("box => box.scrollTo(0, box.scrollHeight)")
    expect(page.get_by_text("worker-299", exact=True)).to_be_visible()
