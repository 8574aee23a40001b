"""Two concurrent batches, as of asynchronous trainers: leases of both in one picture."""

from itertools import pairwise

from openseer_api.page.book import BatchBook, LeaseRows
from openseer_api.page.job_views import bars_of
from openseer_core.queue.messages import JournalEntry
from openseer_core.wire.page import WorkerLane
from tests.api.page.test_book import entry
from tests.api.page.watching import viewer
from tests.api.served import Served

LANE = [WorkerLane(worker="worker-0", state="busy")]


def leases_of(*batches: list[JournalEntry]) -> LeaseRows:
    """The leases as one read returns them: one batch's journal after the other's."""
    leases = LeaseRows()
    for number, entries in enumerate(batches, start=1):
        BatchBook(number, leases).note(entries)
    return leases


def lease(request: str, begin: float, end: float) -> list[JournalEntry]:
    return [entry(begin, "claim", request), entry(end, "complete", request, length=5)]


def test_leases_of_two_batches_at_a_time_have_rows_of_their_own() -> None:
    one, two = leases_of(lease("1/a/0", 0.0, 10.0), lease("2/a/0", 5.0, 15.0)).ended
    assert one.row != two.row


def test_a_lease_of_the_window_is_shown_or_counted_as_left_out() -> None:
    leases = leases_of(lease("1/a/0", 990.0, 995.0), lease("2/a/0", 700.0, 800.0))
    bars = bars_of(leases, LANE, 1000.0 - 120.0, 2000)
    assert len(bars.lane) + bars.left_out >= 1


async def test_groups_of_alternating_batches_have_their_own_rows() -> None:
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        batches = [await served.open(), await served.open()]
        for number in range(6):
            prompts = [{"id": f"q{number}", "prompt_token_ids": [1, 2, 3]}]
            await served.upload(batches[number % 2], prompts, seal=number >= 4)
        for batch in batches:
            await served.until_complete(batch)
        bars = (await person.first("/jobs/default/served"))["bars"]
        rows: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for lane, row, start, end in zip(bars["lane"], bars["row"], bars["start"], bars["end"], strict=True):
            rows.setdefault((lane, row), []).append((start, end))
        assert bars["lane"]
        for spans in rows.values():
            ordered = sorted(spans)
            assert all(before[1] <= after[0] + 0.001 for before, after in pairwise(ordered))
