"""The audit of a run whose store restarted from an older log: lost writes are no violation."""

from dataclasses import replace

import msgspec
import pytest

from openseer_core.numbers import base_of
from openseer_core.queue.messages import JournalEntry
from openseer_driver.audit.rules import JournalCheck
from openseer_driver.run_lines import ResultLine
from tests.driver.audit.evidence import RESULTS, Evidence, audited, changed

LATER = base_of(60_000_000_000)
"""What the fences of a later epoch are above."""
OTHER = "worker-9#b"


def run_again(evidence: Evidence, line: ResultLine, *, fence: int = LATER + 1) -> None:
    """Removes a request's events from its first claim on, and puts another response of a later epoch in their place."""
    name = str(line.request)
    record = evidence.queue.record(line.request)
    tokens = record.tokens[:-4]
    chunk = replace(record.chunks[-1], worker=OTHER, fence=fence, start=0, end=len(tokens) // 4)
    evidence.records[name] = replace(
        record, fence=fence, tokens=tokens, logprobs=record.logprobs[:-4], chunks=(chunk,), holder=OTHER
    )
    kept = [entry for entry in evidence.entries if entry.request != name]
    claim = JournalEntry(0.0, "claim", name, OTHER, fence, 0)
    evidence.entries = [*kept, claim, replace(claim, event="complete", length=chunk.end)]


async def test_the_first_written_copy_of_a_reissued_result_is_kept(evidence: Evidence, lines: list[ResultLine]) -> None:
    run_again(evidence, lines[4])

    report = await audited(evidence, lines)

    assert (report.ok, report.epochs, report.reissued) == (True, 2, 1), report.lines()
    assert report.lines()[0].startswith(f"{RESULTS} requests, {RESULTS} results, ")
    assert "2 epochs of the store, 1 results reissued: no violation" in report.lines()[0]


async def test_a_result_that_differs_within_its_epoch_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    line = next(line for line in lines if len(line.chunks) == 1)
    run_again(evidence, line, fence=line.chunks[-1].fence)

    report = await audited(evidence, lines)

    assert report.reissued == 0
    assert {"tokens", "logprobs", "chunks", "holder"} <= set(report.by_kind)


@pytest.mark.parametrize("forged", [-1, None], ids=["fence of no epoch", "fence whose end the store has"])
async def test_a_result_that_the_store_still_has_is_no_reissue(
    evidence: Evidence, lines: list[ResultLine], forged: int | None
) -> None:
    place = next(place for place, line in enumerate(lines) if len(line.chunks) == 1)
    line = lines[place]
    if forged is None:
        evidence.records[str(line.request)] = replace(evidence.queue.record(line.request), fence=LATER + 1)
    else:
        forgery = msgspec.structs.replace(line.chunks[0], fence=forged, worker=OTHER)
        lines[place] = changed(line, token_ids=[7] * len(line.token_ids), chunks=[forgery])

    report = await audited(evidence, lines)

    assert report.reissued == 0
    assert "fence" in report.by_kind or {"tokens", "chunks", "holder"} <= set(report.by_kind)


async def test_a_reissued_result_is_complete_by_itself(evidence: Evidence, lines: list[ResultLine]) -> None:
    run_again(evidence, lines[4])
    last = lines[4].chunks[-1]
    hole = msgspec.structs.replace(last, start=last.start + 1)
    lines[4] = changed(lines[4], chunks=[*lines[4].chunks[:-1], hole])

    assert (await audited(evidence, lines)).by_kind == {"chunks": 1}


async def test_a_claim_of_an_earlier_epoch_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    run_again(evidence, lines[4])
    evidence.entries = [*evidence.entries[-2:], *evidence.entries[:-2]]

    report = await audited(evidence, lines)

    assert set(report.by_kind) == {"epoch"}
    assert "which had begun, or a later one" in str(report.violations[0])


def test_each_batchs_journal_may_begin_in_any_epoch() -> None:
    check = JournalCheck()
    claims = [
        JournalEntry(0.0, "claim", request, OTHER, fence, 0) for request, fence in (("1/a/0", LATER), ("2/a/0", 1))
    ]

    assert not [violation for claim in claims for violation in check.take(claim)]
    assert len(check.epochs) == 2


@pytest.mark.parametrize(("later", "kinds"), [(True, set[str]()), (False, {"transition", "length"})])
async def test_only_a_new_epoch_excuses_a_lease_without_an_end(
    evidence: Evidence, lines: list[ResultLine], *, later: bool, kinds: set[str]
) -> None:
    line = lines.pop(next(place for place, line in enumerate(lines) if len(line.chunks) == 1))
    first = line.chunks[0]
    run_again(evidence, line, fence=LATER + 1 if later else first.fence + 1)
    *_, claim, end = evidence.entries
    lost = replace(claim, worker=first.worker, fence=first.fence)
    evidence.entries[-2:] = [lost, replace(claim, length=end.length), end]

    report = await audited(evidence, lines)

    assert report.lost_ends == int(later)
    assert set(report.by_kind) == {"missing", "count"} | kinds


async def test_a_cursor_issued_twice_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    lines[3] = changed(lines[3], cursor=lines[2].cursor)

    report = await audited(evidence, lines)

    found = f"cursor: {lines[3].request}: found cursor {lines[2].cursor}, expected a cursor that no other result has"
    assert report.lines()[1:] == [found]
