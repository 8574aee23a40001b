"""The report: figures of small runs, computed by hand, and pages of large runs."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from openseer_core.worker.context_metrics import ContextCounts
from openseer_driver.report.drafting import CorpusReport, OriginReport
from openseer_driver.report.html import page, write_report
from openseer_driver.report.report import estimate_points, make_report
from openseer_driver.report.routed import RowCounts
from openseer_driver.report.trace import Fact, Trace, count_up, make_trace, read_trace, step_changes
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ChunkLine, RoutedFact, RunRecord, SampleLine, Session, WorkerSample
from tests.driver.sample_runs import LARGE, SMALL, run_record, write_run

RECORD = msgspec.structs.replace(run_record("hand", SMALL, 100.0), sessions=[Session(0.0, 200.0)])


def chunk(
    worker: str, start: int, end: int, claimed: float, ended: float, event: str = "complete", fence: int = 1
) -> ChunkLine:
    return ChunkLine(f"{worker}#b", fence, start, end, claimed, ended, event)


def fact(group: str, index: int, *chunks: ChunkLine, status: str = "ok", enqueued: float = 100.0) -> Fact:
    length = chunks[-1].end if chunks else 0
    reason = "stop" if status == "ok" else status
    started = chunks[0].claimed_at if chunks else None
    finished = chunks[-1].ended_at if chunks else 110.0
    return Fact(0, group, index, status, reason, length, chunks, enqueued, started, finished)


def trace(facts: Sequence[Fact], samples: Sequence[SampleLine] = (), record: RunRecord = RECORD) -> Trace:
    ordered = sorted(facts, key=lambda fact: fact.finished_at)
    return make_trace(record, tuple(ordered), tuple(samples))


def test_ten_requests_give_makespan_tail_and_percentiles() -> None:
    facts = [fact("g", index, chunk("w", 0, 10, 100.0, 101.0 + index)) for index in range(9)]
    facts.append(fact("g", 9, chunk("w", 0, 110, 100.0, 120.0)))

    report = make_report(trace(facts))

    assert report.makespan_seconds == 20.0
    assert report.tail_seconds == 20.0 - 9.0
    assert report.tail_share == pytest.approx(0.55)
    assert report.time_to_percent == {"50": 5.0, "90": 9.0, "99": 20.0, "100": 20.0}
    assert (report.tokens_total, report.tokens_per_second) == (200, 10.0)


def test_the_summary_counts_missing_rows_of_routed_experts() -> None:
    facts = [fact("g", index, chunk("w", 0, 10, 100.0, 101.0)) for index in range(3)]
    assert make_report(trace(facts)).routed_experts is None
    rows = [RoutedFact([12, 3, 2], 0), RoutedFact([1100, 3, 2], 5), RoutedFact([12, 3, 2], 2)]
    with_rows = [replace(one, rows=of_one) for one, of_one in zip(facts, rows, strict=True)]
    report = make_report(trace(with_rows))
    assert report.routed_experts == RowCounts(1124, 7, 2)
    assert report.summary.endswith("; 7 of 1,124 rows of routed experts missing, in 2 responses")
    assert make_report(trace(with_rows[:1])).summary.endswith("; all 12 rows of routed experts")


def test_requeues_moves_and_chunks_are_counted() -> None:
    moved = fact(
        "g",
        0,
        chunk("w-1", 0, 5, 100.0, 102.0, "give_back", 1),
        chunk("w-1", 5, 8, 103.0, 104.0, "reap", 2),
        chunk("w-2", 8, 20, 105.0, 110.0, "complete", 3),
    )
    report = make_report(trace([moved, fact("g", 1, chunk("w-2", 0, 4, 100.0, 101.0))]))

    assert (report.requeues, report.give_backs, report.reaps, report.moves) == (2, 1, 1, 1)
    assert (report.chunks_per_request.mean, report.chunks_per_request.max) == (2.0, 3)
    assert report.workers["w-1"].tokens == 8
    assert report.workers["w-2"].tokens == 16


def test_a_worker_without_leases_is_idle() -> None:
    facts = [
        fact("g", 0, chunk("w-1", 0, 5, 100.0, 106.0)),
        fact("g", 1, chunk("w-1", 0, 5, 104.0, 108.0)),
        fact("g", 2, chunk("w-2", 0, 5, 100.0, 110.0)),
    ]
    samples = [SampleLine(105.0, workers={"w-1": WorkerSample(slots=4), "w-3": WorkerSample("idle", slots=4)})]

    report = make_report(trace(facts, samples))

    first = report.workers["w-1"]
    assert (first.busy_seconds, first.idle_share) == (8.0, pytest.approx(0.2))
    assert (first.peak_inflight, first.slots_used_share) == (2, pytest.approx(0.25))
    assert report.workers["w-2"].idle_share == 0.0
    assert report.workers["w-3"].idle_share == 1.0
    assert report.idle_share == pytest.approx(0.4)


def test_the_variance_of_lengths_splits_into_within_and_between_groups() -> None:
    lengths = {"short": (10, 20), "long": (100, 130)}
    facts = [
        fact(group, index, chunk("w", 0, length, 100.0, 110.0))
        for group, two in lengths.items()
        for index, length in enumerate(two)
    ]

    report = make_report(trace([*facts, fact("long", 2, chunk("w", 0, 999, 100.0, 111.0, "abort"), status="aborted")]))

    assert report.lengths.variance_within_groups == pytest.approx((25 + 225) / 2)
    assert report.lengths.variance_between_groups == pytest.approx(50.0**2)
    assert (report.lengths.max, report.lengths.median, report.lengths.mean) == (130, 60.0, 65.0)
    assert report.by_status == {"ok": 4, "aborted": 1}


def test_estimates_are_replayed_from_responses_ended_at_the_first_claim() -> None:
    facts = [
        fact("g", 0, chunk("w", 0, 50, 100.0, 105.0)),
        fact("g", 1, chunk("w", 0, 80, 101.0, 107.0)),
        fact("g", 2, chunk("w", 0, 60, 106.0, 110.0)),
        fact("g", 3, chunk("w", 0, 100, 108.0, 111.0)),
    ]

    points = estimate_points(trace(facts))
    report = make_report(trace(facts))

    assert [(point.index, point.informed, point.estimate, point.length) for point in points] == [
        (1, False, SMALL.max_tokens, 80),
        (2, True, 50, 60),
        (3, True, 80, 100),
    ]
    assert (report.estimates.requests, report.estimates.informed) == (3, 2)
    assert (report.estimates.mean_absolute_error, report.estimates.bias) == (15.0, -15.0)
    assert report.estimates.within_a_quarter == 1.0


def test_pauses_between_sessions_do_not_count() -> None:
    record = msgspec.structs.replace(RECORD, sessions=[Session(90.0, 110.0), Session(1110.0, 1200.0)])
    facts = [
        fact("g", 0, chunk("w", 0, 5, 100.0, 109.0)),
        fact("g", 1, chunk("w", 0, 5, 100.0, 1110.0, "reap"), chunk("w", 5, 9, 1111.0, 1120.0)),
    ]

    report = make_report(trace(facts, record=record))

    assert report.pause_seconds == 1000.0
    assert report.makespan_seconds == 20.0
    assert "pauses between the sessions" in report.makespan_is
    assert report.workers["w"].busy_seconds == pytest.approx(19.0)


def test_the_pause_of_a_killed_session_begins_at_its_last_record() -> None:
    record = msgspec.structs.replace(RECORD, sessions=[Session(90.0, None), Session(1110.0, 1200.0)])
    facts = [fact("g", 0, chunk("w", 0, 5, 100.0, 1110.5, "reap"), chunk("w", 5, 9, 1111.0, 1120.0))]

    report = make_report(trace(facts, [SampleLine(104.0), SampleLine(1112.0)], record))

    assert report.pause_seconds == 1110.0 - 104.0
    assert report.makespan_seconds == 4.0 + 10.0


def test_counters_continue_over_restarts_of_a_worker() -> None:
    assert count_up([0, 2, 3, 1, 1, 4]) == [0, 2, 3, 4, 4, 7]

    samples = [SampleLine(100.0 + n, workers={"w": WorkerSample(preemptions=p)}) for n, p in enumerate((1, 3, 0, 2))]
    assert make_report(trace([fact("g", 0, chunk("w", 0, 5, 100.0, 110.0))], samples)).preemptions == 5


def test_contexts_are_added_up_over_workers_and_restarts() -> None:
    def contexts(computed: int, fetched: int) -> WorkerSample:
        return WorkerSample(contexts=ContextCounts(computed, computed // 2, 1, fetched, fetch_seconds=fetched / 1000))

    samples = [
        SampleLine(100.0, workers={"w-1": contexts(100, 20), "w-2": contexts(40, 0)}),
        SampleLine(101.0, workers={"w-1": contexts(30, 10), "w-2": contexts(60, 500)}),
    ]
    facts = [fact("g", number, chunk(f"w-{number}", 0, 5, 100.0, 110.0)) for number in (1, 2)]
    found = make_report(trace(facts, samples))
    assert found.contexts == ContextCounts(190, 95, 2, 530, fetch_seconds=0.53)
    assert "530 tokens of context fetched" in found.summary


def test_requests_in_flight_are_counted_from_their_spans() -> None:
    spans = iter([(0.0, 4.0), (1.0, 2.0), (2.0, 3.0)])

    assert step_changes(spans) == ([0.0, 1.0, 2.0, 3.0, 4.0], [1, 2, 2, 1, 0])


def test_a_run_without_results_has_a_report_and_a_page() -> None:
    empty = trace([], record=msgspec.structs.replace(RECORD, state="stopped", reason="SIGINT <b>"))

    report = make_report(empty)
    text = page(empty, report)

    assert (report.makespan_seconds, report.tokens_per_second, report.requests_total) == (0.0, 0.0, 0)
    assert "This run is stopped (SIGINT &lt;b&gt;)" in text


def test_aborted_requests_that_never_ran_have_a_report_and_a_page() -> None:
    facts = [fact("g", index, status="aborted") for index in range(3)]
    aborted = trace(facts, [SampleLine(101.0, waiting=3)])

    report = make_report(aborted)

    assert (report.requests_ok, report.by_finish_reason) == (0, {"aborted": 3})
    assert "No response is complete." in page(aborted, report)


def test_a_run_folder_gets_report_json_and_a_self_contained_page(tmp_path: Path) -> None:
    write_run(tmp_path / "small", replace(SMALL, killed=12.0))
    folder = RunFolder(tmp_path / "small")

    report = write_report(folder)

    written = json.loads(folder.report_file.read_text())
    assert written["requests_total"] == report.requests_total == 320
    assert written["reaps"] > 0
    check_page(folder.report_page.read_text(), charts=7)


def drafting(drafted: int, accepted: int, source: str, references: int, row_steps: int, steps: int) -> dict[str, float]:
    """Counters of a worker all of whose request-steps had as many references and drafted from one source."""
    return {
        "draft_full": 1,
        "steps": steps,
        "draft_steps": row_steps,
        "draft_seconds": steps / 1000,
        "drafted_tokens": drafted,
        "accepted_tokens": accepted,
        f"drafted_{source}": drafted,
        f"accepted_{source}": accepted,
        f"steps_refs_{references}": row_steps,
        f"tokens_refs_{references}": row_steps + accepted,
    }


def test_drafts_are_added_up_over_workers_sources_and_restarts() -> None:
    samples = [
        SampleLine(101.0, workers={"w-1": WorkerSample(drafting="on", drafts=drafting(40, 20, "own", 0, 10, 5))}),
        SampleLine(102.0, workers={"w-1": WorkerSample(drafting="on", drafts=drafting(60, 25, "own", 0, 15, 8))}),
        SampleLine(
            103.0,
            workers={
                "w-1": WorkerSample(drafting="on", drafts=drafting(10, 5, "own", 0, 5, 2)),
                "w-2": WorkerSample(drafting="on", drafts=drafting(30, 30, "siblings", 4, 10, 10)),
            },
        ),
    ]

    report = make_report(trace([fact("g", 0, chunk("w-1", 0, 5, 100.0, 110.0))], samples))

    found = report.drafting
    assert found is not None
    assert (found.drafted_tokens, found.accepted_tokens, found.wasted_tokens) == (100, 60, 40)
    assert (found.row_steps, found.acceptance_length, found.draft_length) == (30, 3.0, pytest.approx(100 / 30))
    assert found.draft_share == pytest.approx(60 / 90)
    assert (found.seconds, found.seconds_per_step) == (pytest.approx(0.02), pytest.approx(0.001))
    assert found.full == 3
    assert found.by_source["own"] == OriginReport(70, 30, 40)
    assert found.by_source["earlier"] == OriginReport(0, 0, 0)
    assert found.by_references == {"0": CorpusReport(20, 2.5), "4": CorpusReport(10, 4.0)}
    assert report.drafts == "on"
    assert report.summary.endswith("3.00 tokens a step with drafts")


def test_a_run_without_drafts_has_the_reason_in_place_of_charts() -> None:
    reason = "off: spec.speculation.enabled is false"
    samples = [SampleLine(101.0, workers={"w": WorkerSample(drafting=reason)})]
    without = trace([fact("g", 0, chunk("w", 0, 5, 100.0, 110.0))], samples)

    report = make_report(without)
    text = page(without, report)

    assert (report.drafts, report.drafting, report.acceptance_length) == (reason, None, 1.0)
    assert reason in text
    assert "Acceptance length" not in text
    assert "with drafts" not in report.summary


def test_a_run_with_drafts_has_three_more_charts(tmp_path: Path) -> None:
    write_run(tmp_path / "drafted", replace(SMALL, groups=8, drafts=True))
    folder = RunFolder(tmp_path / "drafted")

    report = write_report(folder)

    written = json.loads(folder.report_file.read_text())["drafting"]
    assert report.drafting is not None
    assert written["accepted_tokens"] == report.drafting.accepted_tokens > 0
    assert written["accepted_tokens"] + written["wasted_tokens"] == written["drafted_tokens"]
    text = folder.report_page.read_text()
    check_page(text, charts=10)
    assert "the Seer paper, at 0, 1, 5 and 15" in text


@pytest.mark.slow
def test_the_page_of_four_thousand_requests_stays_small(tmp_path: Path) -> None:
    write_run(tmp_path / "large", LARGE)
    folder = RunFolder(tmp_path / "large")

    report = write_report(folder)

    assert (report.requests_total, len(report.workers)) == (4000, 16)
    assert folder.report_page.stat().st_size < 5_000_000
    check_page(folder.report_page.read_text(), charts=7)


def test_reports_of_one_run_are_identical(tmp_path: Path) -> None:
    write_run(tmp_path / "run", replace(SMALL, groups=4))
    run = read_trace(RunFolder(tmp_path / "run"))

    assert page(run, make_report(run)) == page(run, make_report(run))


def check_page(text: str, charts: int) -> None:
    """Asserts that the page is well nested, has that many charts, loads nothing from elsewhere and has no placeholder
    left."""
    nesting = Nesting()
    nesting.feed(text)
    assert nesting.open == []
    assert text.count("<svg") == charts
    links = re.findall(r"(?:src|href)=\"([^\"#][^\"]{0,40})|url\((?!#)([^)]*)", text)
    assert [link for pair in links for link in pair if link and not link.startswith("data:")] == []
    assert "<script" not in text
    assert not re.search(r"#0[1-9a]0[2-9a-f]0[3-9a-c]\b", text)


class Nesting(HTMLParser):
    """A parser that keeps the open elements."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag
