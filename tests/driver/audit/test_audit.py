"""The audit: no violation for a correct run, and one readable line for each kind of violation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, nan
from typing import cast

import msgspec
import pytest

from openseer_core.errors import AuditError
from openseer_core.queue.messages import JournalEntry, Result
from openseer_core.queue.states import State
from openseer_core.tokens import pack_logprobs, unpack_logprobs
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Source
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState, WorkerStatus
from openseer_driver.audit.audit import audit
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine, RoutedLine
from openseer_store.port import DriverStore
from tests.driver.audit.evidence import RESULTS, SHAPE, Evidence, audited, changed
from tests.driver.sample_runs import Simulation, result_line


def many_chunks(lines: Sequence[ResultLine]) -> int:
    return max(range(len(lines)), key=lambda place: len(lines[place].chunks))


async def test_a_run_with_lost_workers_and_moved_requests_has_no_violation(
    run: tuple[Simulation, RunFolder], evidence: Evidence
) -> None:
    report = await audited(evidence, run[1])

    assert report.lines() == [
        f"{RESULTS} requests, {RESULTS} results, {len(evidence.entries)} events checked: no violation"
    ]
    assert {"reap", "give_back"} <= {entry.event for entry in evidence.entries}
    report.require()


async def test_missing_rows_are_noted_and_are_no_violation(evidence: Evidence, lines: list[ResultLine]) -> None:
    lines[0] = changed(lines[0], routed_experts=RoutedLine("a.npy", 0, [40, 2, 2], "uint8", 3, [(1, 4)]))

    report = await audited(evidence, lines)

    assert report.lines()[0].endswith("events checked, 3 of 40 rows of routed experts missing: no violation")
    assert (report.as_dict()["rows"], report.as_dict()["rows_missing"]) == (40, 3)
    report.require()


async def test_a_missing_result_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    gone = lines.pop(7)

    report = await audited(evidence, lines)

    assert str(report.violations[0]) == f"missing: {gone.request}: found no result while done, expected exactly one"
    assert report.by_kind == {"missing": 1, "count": 1}
    with pytest.raises(AuditError, match="2 violations"):
        report.require()


async def test_a_doubled_result_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    report = await audited(evidence, [*lines, lines[3]])

    assert report.lines()[1:] == [f"doubled: {lines[3].request}: found one more result, expected exactly one"]


async def test_an_unrequested_result_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    report = await audited(evidence, [*lines, changed(lines[0], index=99), changed(lines[0], group="other")])

    assert report.by_kind == {"unknown": 2}


async def test_an_event_of_an_unknown_request_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    evidence.entries.append(JournalEntry(0.0, "claim", "0/prompt-000/77", "w#b", 1, 0))

    assert (await audited(evidence, lines)).by_kind == {"unknown": 1}


Change = Callable[[ResultLine], ResultLine]


def _other_token(line: ResultLine) -> ResultLine:
    return changed(line, token_ids=[*line.token_ids[:-1], line.token_ids[-1] + 1])


def _other_logprob(line: ResultLine) -> ResultLine:
    assert line.logprobs is not None
    return changed(line, logprobs=[-77.0, *line.logprobs[1:]])


def _hole(line: ResultLine) -> ResultLine:
    last = line.chunks[-1]
    return changed(line, chunks=[*line.chunks[:-1], msgspec.structs.replace(last, start=last.start + 1)])


def _overlap(line: ResultLine) -> ResultLine:
    first, *rest = line.chunks
    return changed(line, chunks=[msgspec.structs.replace(first, end=first.end + 1), *rest])


def _other_holder(line: ResultLine) -> ResultLine:
    return changed(line, chunks=[*line.chunks[:-1], msgspec.structs.replace(line.chunks[-1], worker="other#b")])


def _old_fence(line: ResultLine) -> ResultLine:
    fence = line.chunks[-2].fence
    return changed(line, chunks=[*line.chunks[:-1], msgspec.structs.replace(line.chunks[-1], fence=fence)])


FORGED: list[tuple[Change, str, str]] = [
    (_other_token, "tokens", "tokens that differ from position"),
    (_other_logprob, "logprobs", "log-probabilities that differ"),
    (lambda line: changed(line, logprobs=None), "logprobs", "found none"),
    (lambda line: changed(line, top_logprobs=[[(1, -1.0)]]), "logprobs", "likeliest tokens that differ"),
    (_hole, "chunks", "a hole from"),
    (_overlap, "chunks", "an overlap from"),
    (lambda line: changed(line, chunks=line.chunks[1:]), "chunks", "a hole from 0 to"),
    (_other_holder, "holder", "a result by other#b"),
    (_old_fence, "fence", "chunk fence"),
    (lambda line: changed(line, finish_reason="aborted"), "finish", "status ok with reason aborted"),
    (lambda line: changed(line, finish_reason="length"), "finish", "expected limit"),
    (
        lambda line: changed(line, status="aborted", finish_reason="aborted"),
        "finish",
        "status aborted while done in the store",
    ),
    (lambda line: changed(line, status="lost", finish_reason="lost"), "finish", "status lost with reason lost"),
    (lambda line: changed(line, token_ids=[], logprobs=None), "finish", "status ok without a token"),
    (lambda line: changed(line, weights_version="v2"), "version", "found 'v2', expected 'initial'"),
    (lambda line: changed(line, prompt_token_ids=[1]), "prompt", "found 1 prompt tokens"),
]


@pytest.mark.parametrize(("change", "kind", "words"), FORGED)
async def test_a_changed_result_is_found(
    evidence: Evidence, lines: list[ResultLine], change: Change, kind: str, words: str
) -> None:
    place = many_chunks(lines)
    lines[place] = change(lines[place])

    report = await audited(evidence, lines)

    told = [line for line in report.lines() if line.startswith(f"{kind}: {lines[place].request}: ")]
    assert any(words in line for line in told), report.lines()
    assert {violation.request for violation in report.violations} == {str(lines[place].request)}


async def test_null_in_a_result_matches_nan_or_infinity_in_the_store(
    evidence: Evidence, lines: list[ResultLine]
) -> None:
    for place, bad in enumerate((nan, inf, -inf)):
        record = evidence.queue.record(lines[place].request)
        stored = [bad, *unpack_logprobs(record.logprobs)[1:]]
        evidence.records[str(lines[place].request)] = replace(record, logprobs=pack_logprobs(stored))
        lines[place] = changed(lines[place], logprobs=[None, *stored[1:]])
    assert not (await audited(evidence, lines)).violations

    other = lines[3].logprobs
    assert other is not None
    lines[3] = changed(lines[3], logprobs=[None, *other[1:]])
    assert (await audited(evidence, lines)).by_kind == {"logprobs": 1}


async def test_a_backward_wall_clock_is_no_violation(evidence: Evidence, lines: list[ResultLine]) -> None:
    place = many_chunks(lines)
    *rest, last = lines[place].chunks
    back = msgspec.structs.replace(last, ended_at=last.claimed_at - 0.5)
    report = await audited(evidence, [*lines[:place], changed(lines[place], chunks=[*rest, back]), *lines[place + 1 :]])
    assert not report.violations, report.lines()


async def test_an_impossible_event_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    place = evidence.place_of("give_back")
    request = evidence.entries[place].request
    del evidence.entries[place]

    report = await audited(evidence, lines)

    expected = "give_back, reap, complete, fail, abort, cancel, carry"
    assert f"transition: {request}: found claim while leased, expected {expected}" in report.lines()


async def test_a_claim_that_forgot_tokens_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    request = evidence.entries[evidence.place_of("give_back")].request
    again = evidence.place_of("claim", request, after=evidence.place_of("give_back", request))
    length = evidence.entries[again].length
    evidence.change_entry(again, length=length - 1)

    report = await audited(evidence, lines)

    found = f"found a claim at {length - 1} tokens, expected {length}, where the last lease ended"
    assert report.lines()[1:] == [f"length: {request}: {found}"]


async def test_a_request_that_shrank_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    end = next(place for place, entry in enumerate(evidence.entries) if entry.event == "complete" and entry.length > 60)
    request = evidence.entries[end].request
    evidence.change_entry(end, length=-1)

    report = await audited(evidence, lines)

    assert [violation.kind for violation in report.violations] == ["length"]
    assert report.violations[0].request == request


async def test_a_fence_that_does_not_grow_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    request = evidence.entries[evidence.place_of("give_back")].request
    again = evidence.place_of("claim", request, after=evidence.place_of("give_back", request))
    evidence.change_entry(again, fence=1)

    report = await audited(evidence, lines)

    assert any(line.startswith(f"fence: {request}: found fence 1 at a claim, expected more") for line in report.lines())


async def test_a_write_by_another_than_the_holder_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    entry = evidence.change_entry(evidence.place_of("complete"), worker="stale#b")

    report = await audited(evidence, lines)

    assert len(report.lines()) == 2
    assert f"holder: {entry.request}: found complete by stale#b" in report.lines()[1]


async def test_a_record_that_is_not_finished_is_found(evidence: Evidence, lines: list[ResultLine]) -> None:
    request = lines[2].request
    evidence.records[str(request)] = replace(evidence.queue.record(request), state=State.LEASED)

    report = await audited(evidence, lines)

    assert report.lines()[1:] == [f"finish: {request}: found status ok while leased in the store, expected done"]


async def test_requests_of_a_stopped_run_may_be_unfinished() -> None:
    simulation = Simulation(SHAPE)
    for _ in range(30):
        for worker in simulation.workers:
            simulation.step(worker)
        simulation.now += 0.25
    lines = [result_line(result) for result in simulation.results()]

    stopped = await audit(cast(DriverStore, Evidence(simulation.queue)), lines, [0], finished=False)
    behind = await audit(cast(DriverStore, Evidence(simulation.queue)), lines[:-1], [0], finished=False)
    hole = await audit(cast(DriverStore, Evidence(simulation.queue)), lines[1:], [0], finished=False)
    complete = await audit(cast(DriverStore, Evidence(simulation.queue)), lines, [0], finished=True)

    assert 1 < len(lines) < RESULTS
    assert (stopped.ok, stopped.unfinished) == (True, RESULTS - len(lines))
    assert (behind.ok, behind.unfinished) == (True, RESULTS - len(lines) + 1)
    assert hole.by_kind == {"missing": 1}
    assert complete.by_kind == {"missing": RESULTS - len(lines)}


async def test_all_violations_are_counted_and_the_first_are_listed(evidence: Evidence) -> None:
    lines = [result_line(result) for result in evidence.queue.results(0, 0, 1) if isinstance(result, Result)] * 301

    report = await audited(evidence, lines)

    assert report.by_kind["doubled"] == 300
    assert len(report.violations) == 200
    assert report.lines()[-1].startswith("… and ")
    assert report.as_dict()["ok"] is False


async def test_workers_with_different_files_of_one_version_are_found(
    evidence: Evidence, lines: list[ResultLine]
) -> None:
    def worker(name: str, version: str, loaded: str, phase: str = "load") -> WorkerStatus:
        report = WeightsReport(version=version, publisher=1, digest="33", loaded=loaded, phase=phase)
        return WorkerStatus(name, "b", 0.0, 0, Heartbeat(WorkerState.IDLE, weights=report))

    evidence.fleet = [worker("a", "v1", "11"), worker("b", "v2", "22"), worker("c", "v1", "11", "prefetch")]
    assert (await audited(evidence, lines)).ok

    for phase in ("load", "", "rollback"):
        evidence.fleet[3:] = [worker("d", "v1", "33", phase)]
        expected = "digest: d: found weights v1 of digest 33, expected 11, as a has loaded"
        assert (await audited(evidence, lines)).lines()[1:] == [expected]

    source = Source(path="/v2", digest="4" * 64)
    evidence.fleet, evidence.spec = evidence.fleet[:3], FleetSpec(version="v2", publisher=1, source=source)
    expected = f"digest: b: found weights v2 of digest 22, expected {source.digest}, as in the fleet spec"
    assert (await audited(evidence, lines)).lines()[1:] == [expected]
