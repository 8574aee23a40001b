"""Counted costs of a view of ten thousand requests in a browser; `test_fluid.py` measures times."""

from typing import TYPE_CHECKING

import pytest

from tests.page.browsing import expect
from tests.page.conftest import Site
from tests.page.played_views import batch_view, job_view
from tests.page.test_fluid import large

if TYPE_CHECKING:
    from playwright.sync_api import Page

JOB, BATCH = "#/job/team-a/large", "#/job/team-a/large/batch/3"
VIEWS = 4
MOST_DRAWN = {JOB: 1000, BATCH: 6500}
"""Calls of canvases that put something down, in one frame."""
MOST_CHANGED = {JOB: 200, BATCH: 200}
"""Nodes and attributes of the document that one view changes."""
MOST_ELEMENTS = 600
MOST_BYTES = 200_000
"""Of one event."""
COUNTED = """
window.drawn = [0];
window.changed = [];
const pens = CanvasRenderingContext2D.prototype;
for (const name of ["fillRect", "strokeRect", "fill", "stroke", "fillText", "drawImage", "putImageData"]) {
  const draw = pens[name];
  pens[name] = function (...given) {
    window.drawn[window.drawn.length - 1] += 1;
    return draw.apply(this, given);
  };
}
const frame = () => {
  window.drawn.push(0);
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
new MutationObserver(records => window.changed.push(records.length))
  .observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
"""


@pytest.mark.parametrize("site", [large], indirect=True)
@pytest.mark.parametrize("view", [JOB, BATCH])
def test_a_view_of_ten_thousand_requests_has_few_drawings_and_changes(page: "Page", site: Site, view: str) -> None:
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.add_init_script(COUNTED)
    page.goto(site.url + view)
    expect(page.get_by_text("10,000", exact=False).first).to_be_visible()
    page.wait_for_function("most => window.changed.filter(number => number > 20).length > most", arg=VIEWS)
    drawn, changed = page.evaluate("[Math.max(...window.drawn), Math.max(...window.changed)]")
    elements = page.evaluate("document.querySelectorAll('*').length")
    assert 100 < drawn <= MOST_DRAWN[view], drawn
    assert 20 < changed <= MOST_CHANGED[view], changed
    assert elements <= MOST_ELEMENTS, elements


def test_a_view_of_ten_thousand_requests_is_few_bytes() -> None:
    fleet = large().large
    assert fleet is not None
    for view in (batch_view(fleet), job_view(fleet, "large")):
        assert len(view.model_dump_json()) <= MOST_BYTES


@pytest.mark.parametrize("site", [large], indirect=True)
def test_a_long_tail_shows_its_first_rows_and_the_rest_on_request(page: "Page", site: Site) -> None:
    page.goto(site.url + BATCH)
    rows = page.get_by_role("region", name="Table of running responses").locator("tbody tr")
    expect(rows).to_have_count(15)
    more = page.get_by_role("button", name="show all 50")
    expect(more).to_have_attribute("aria-expanded", "false")
    more.press("Enter")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="show the first 15 only").press("Enter")
    expect(rows).to_have_count(15)
