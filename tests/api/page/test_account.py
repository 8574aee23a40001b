"""The time of a running job: by parts, with slow workers and the reason, and the requests that end last."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from openseer_api.page.account import ENOUGH_SECONDS, LiveAccount
from openseer_api.page.book import BatchBook, LeaseRows
from openseer_core.explain.parts import PART_NAMES, classify
from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupView
from openseer_core.queue.messages import JournalEntry
from openseer_core.wire.page import Explained
from openseer_core.worker.heartbeat import Heartbeat, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics
from tests.api.page.watching import viewer
from tests.api.served import LONG, Served, serving_job

JOB = "/jobs/default/served"


def told(at: float, event: str, request: int, worker: str = "", batch: int = 1) -> JournalEntry:
    return JournalEntry(at, event, f"{batch}/g/{request}", worker, 1, 10)


def book_of(account: LiveAccount, size: int, at: float = 100.0, batch: int = 1) -> BatchBook:
    """The book of a batch with one group, which feeds the account."""
    book = BatchBook(batch, LeaseRows(), account)
    book.learn(1, [GroupView(GroupId(batch, "g"), 0, 0, size, 50, at)])
    return book


def beat(
    name: str, at: float, *, pace: float = 20.0, load: int = 1, since: float = 100.0, began: float = 100.0, **more: Any
) -> WorkerStatus:
    """The status of a worker that generates `load` responses since its boot at `since`, each by `pace` tokens per
    second."""
    ran = at - since
    counted = {"seconds_running": ran, "seconds_responses": ran * load, "tokens": round(ran * load * pace)}
    metrics = WorkerMetrics({"slots": 2, **counted, **more})
    return WorkerStatus(name, "a", at, load, Heartbeat(WorkerState.BUSY, metrics, None, 0.0, at - began))


async def account_of(
    entries: Sequence[JournalEntry], workers: Sequence[WorkerStatus], now: float, *, size: int, at: float = 100.0
) -> Explained:
    account = LiveAccount()
    book_of(account, size, at).note(entries)
    await account.settle(workers, now, float("inf"))
    return account.explained("context-aware", "batch", "", now)


def seconds(found: Explained) -> dict[str, float]:
    return {part.name: part.worker_seconds for part in found.parts if part.worker_seconds}


async def test_each_moment_of_a_job_that_runs_has_its_part() -> None:
    entries = [
        told(110.0, "claim", 0, "w#a"), told(115.0, "claim", 1, "w#a"),
        told(130.0, "complete", 0, "w#a"), told(150.0, "complete", 1, "w#a"),
    ]  # fmt: skip
    found = await account_of(entries, [beat("w", 160.0, began=105.0, since=160.0)], 160.0, size=2)
    assert seconds(found) == {
        "boot": 5.0, "idle": 5.0, "decode_below_waiting": 5.0, "decode_full": 15.0, "decode_below": 20.0,
        "prompts": 10.0,
    }  # fmt: skip
    assert (found.live, found.seconds, found.worker_seconds) == (True, 60.0, 60.0)


async def test_an_idle_worker_in_the_tail_counts_as_tail() -> None:
    entries = [told(100.0, "claim", 0, "w#a")]
    found = await account_of(entries, [beat("w", 140.0), beat("v", 140.0, load=0)], 140.0, size=1)
    assert seconds(found) == {"decode_below": 40.0, "tail": 40.0}


async def test_deleted_groups_do_not_hide_waiting_ones() -> None:
    gone = [JournalEntry(100.0 + n, event, "1/gone/0", "w#a", 1, 9) for n, event in ((0, "claim"), (10, "complete"))]
    entries = [*gone, told(110.0, "claim", 0, "w#a")]
    found = await account_of(entries, [beat("w", 140.0, since=140.0)], 140.0, size=2)
    assert seconds(found) == {"decode_below_waiting": 40.0}


async def test_an_acknowledged_batch_counts_neither_as_waiting_nor_running() -> None:
    account = LiveAccount()
    book_of(account, 3).note([told(100.0, "claim", 0, "w#a")])
    await account.settle([beat("w", 120.0, since=120.0)], 120.0, float("inf"))
    account.drop_batch(1)
    assert not account.in_tail
    assert seconds(account.explained("context-aware", "serve", "", 150.0)) == {
        "decode_below_waiting": 20.0, "prompts": 30.0,
    }  # fmt: skip


async def test_continued_turns_do_not_hide_waiting_requests() -> None:
    turns = [
        entry
        for at in (100.0, 110.0, 120.0)
        for entry in (told(at, "claim", 0, "w#a"), told(at + 9, "complete", 0, "w#a"), told(at + 10, "go_on", 0, "w#a"))
    ]
    found = await account_of([*turns, told(130.0, "claim", 0, "w#a")], [beat("w", 140.0, since=140.0)], 140.0, size=3)
    assert seconds(found) == pytest.approx({"decode_below_waiting": 37.0, "idle": 3.0})


async def test_requests_that_join_a_group_wait_until_they_run() -> None:
    account = LiveAccount()
    book = book_of(account, 1)
    book.note([told(100.0, "claim", 0, "w#a"), told(110.0, "complete", 0, "w#a")])
    entries = [told(120.0, "claim", 1, "w#a")]
    assert book.outgrown(entries) == {GroupId(1, "g"): 120.0}
    book.grow("g", 3, 120.0)
    book.note(entries)
    other = book_of(account, 1, 130.0, batch=2)
    await account.settle([beat("w", 140.0, since=140.0)], 140.0, float("inf"))
    assert not account.in_tail
    book.note([told(140.0, "claim", 2, "w#a")])
    other.note([told(140.0, "claim", 0, "w#a", batch=2)])
    await account.settle([beat("w", 150.0, since=150.0)], 150.0, float("inf"))
    assert account.in_tail


async def test_a_deleted_batch_leaves_no_open_requests_in_later_sums() -> None:
    account = LiveAccount()
    gone, book = book_of(account, 4, 105.0), book_of(account, 1, batch=2)
    gone.note([told(106.0, "claim", 0, "w#a")])
    await account.settle([beat("w", 110.0, since=110.0)], 110.0, 103.0)
    account.drop_batch(1)
    book.note([told(107.0, "claim", 0, "w#a", batch=2), told(120.0, "complete", 0, "w#a", batch=2)])
    await account.settle([beat("w", 130.0, since=130.0)], 130.0, float("inf"))
    assert seconds(account.explained("context-aware", "serve", "", 130.0)) == {
        "idle": 7.0, "decode_below": 13.0, "prompts": 10.0
    }  # fmt: skip


async def test_a_silent_worker_counts_as_lost_from_its_last_heartbeat() -> None:
    entries = [told(100.0, "claim", 0, "w#a"), told(130.0, "reap", 0, "w#a")]
    found = await account_of(entries, [beat("w", 120.0)], 150.0, size=1)
    assert seconds(found)["lost"] == pytest.approx(20.0)


@pytest.mark.parametrize("seed", range(20))
async def test_the_parts_are_those_of_the_whole_journal_at_its_end(seed: int) -> None:
    draw, now, entries, spans, waits = random.Random(seed), 100.0, list[JournalEntry](), list[Any](), list[Any]()
    for request in range(6):
        since = 100.0
        time = 100.0 + draw.uniform(0, 20)
        for last in (False, False, True):
            end = time + draw.uniform(0.1, 9)
            entries += [told(time, "claim", request, "w#a"), told(end, "complete" if last else "give_back", request)]
            spans.append((time - 100, end - 100))
            waits.append((since - 100, time - 100))
            since, time = end, end + draw.uniform(0.1, 9)
            now = max(now, end)
    entries.sort(key=lambda entry: entry.at)
    last = max(end for _, end in spans)
    found = await account_of(entries, [beat("w", now, since=now)], now, size=6)
    whole = classify(spans, waits, [], slots=2, stocked=0.0, submitted=0.0, end=last)
    by_name = seconds(found)
    for name in PART_NAMES:
        assert by_name.get(name, 0.0) == pytest.approx(whole[name], abs=0.06), name


async def test_a_journal_read_in_pieces_gives_the_same_parts() -> None:
    entries = [told(100.0 + n, "claim" if n % 2 == 0 else "complete", n // 2, "w#a") for n in range(40)]
    workers = [beat("w", 140.0, since=140.0)]
    whole = await account_of(entries, workers, 140.0, size=20)
    account = LiveAccount()
    book = book_of(account, 20)
    for n, entry in enumerate(entries):
        book.note([entry])
        await account.settle([beat("w", 100.0 + n, since=100.0 + n)], 100.0 + n, entry.at)
    assert seconds(account.explained("context-aware", "batch", "", 140.0)) == seconds(whole)


async def test_a_slow_worker_is_named_with_its_pace_and_advice_at_the_first_look() -> None:
    entries = [told(100.0, "claim", n, f"w{n}#a") for n in range(3)]
    fleet = [beat("w0", 110.0), beat("w1", 110.0), beat("w2", 110.0, pace=8.0)]
    found = await account_of(entries, fleet, 110.0, size=3)
    [finding] = found.findings
    assert (finding.cause, finding.subject) == ("slow_worker", "w2")
    assert finding.says.startswith(
        "w2 generates responses at 0.40 of the other workers' pace with equally many: 8.0 tokens/s"
    )
    assert "its node and GPU" in finding.advice


async def test_a_worker_that_becomes_slow_late_is_named() -> None:
    account = LiveAccount()
    book_of(account, 2, 0.0).note([told(0.0, "claim", n, f"w{n}#a") for n in range(2)])
    for second in range(0, 4000, 2):
        slowed = 20.0 * min(second, 3700) + 6.0 * max(0, second - 3700)
        fleet = [beat("w0", float(second), since=0.0, began=0.0)]
        fleet.append(beat("w1", float(second), since=0.0, began=0.0, tokens=round(slowed)))
        await account.settle(fleet, float(second), float("inf"))
    [finding] = account.explained("context-aware", "batch", "", 4000.0).findings
    assert (finding.subject, round(finding.figure, 1)) == ("w1", 0.3)


async def test_a_young_job_has_no_advice_on_its_parts_with_a_note() -> None:
    young = await account_of([], [beat("w", 110.0, load=0)], 110.0, size=4)
    assert (young.findings, [note for note in young.notes if "need a job of" in note]) == ([], young.notes)
    assert len(young.notes) == 1
    later = await account_of([], [beat("w", 100.0 + ENOUGH_SECONDS, load=0)], 100.0 + ENOUGH_SECONDS, size=4)
    assert [finding.cause for finding in later.findings] == ["idle"]


async def test_counters_from_before_the_first_reading_are_left_out_with_a_note() -> None:
    before = beat("w", 140.0, since=0.0, began=0.0, seconds_store_below=30.0)
    found = await account_of([told(100.0, "claim", 0, "w#a")], [before], 140.0, size=1)
    assert "store" not in seconds(found)
    assert found.notes == [
        "w ran before this page was first opened: earlier waits for the store, for weights and for contexts count "
        "as idle or decoding"
    ]


async def test_the_page_shows_a_running_jobs_time_and_its_last_response() -> None:
    async with Served(held=True) as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open(sampling=LONG)
        await served.upload(batch, [{"id": "q", "prompt_token_ids": [1, 2, 3]}], seal=True)
        await person.until(JOB, lambda view: len(view["bars"]["lane"]) == 4)
        view = await person.until(f"{JOB}/explained", lambda view: view["tail"])
        assert view["tail"].startswith("4 responses run and no request waits; response ")
        assert "of group q is expected to end last: worker-0 has run it for" in view["tail"]
        assert view["live"] is True
        assert view["best"] is None


async def test_the_page_names_a_planted_slow_worker_in_lane_and_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = {"stepSecondsPerRequest": 0.0, "slots": 4}
    job = serving_job(
        workers=3, model={"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.02, **slots}}
    )
    async with Served(job) as served, viewer(served) as person:
        for index in range(3):
            served.start_worker(index, step_seconds=0.1 if index == 2 else None)
        batch = await served.open(sampling=LONG)
        await served.upload(batch, [{"id": f"q{n}", "prompt_token_ids": [1, 2]} for n in range(3)], seal=True)
        async with asyncio.timeout(120):
            view = await person.until(JOB, lambda view: any(lane["slow"] for lane in view["lanes"]))
            assert [lane["worker"] for lane in view["lanes"] if lane["slow"]] == ["worker-2"]
            told = await person.until(f"{JOB}/explained", lambda view: view["findings"])
        assert told["findings"][0]["subject"] == "worker-2"
        assert "of the other workers' pace" in told["findings"][0]["says"]
