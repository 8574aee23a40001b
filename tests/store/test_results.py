"""The operations of a driver: submission, results, acknowledgement, workers, journal; the same on every store."""

import asyncio
import time

import pytest

from openseer_core.errors import DriverFencedError, FreedError
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.queue.batch import GroupEnd, OpenBatch
from openseer_core.queue.budgets import REPLY_BYTES
from openseer_core.queue.group import Priority
from openseer_core.queue.messages import Result, WriteOutcome
from openseer_core.queue.states import FinishReason, State, Status
from openseer_core.token_scores import MOST_SCORE_BYTES
from openseer_core.tokens import ITEM_BYTES
from openseer_core.wire.batches import MAX_PROMPT_TOKENS
from openseer_core.worker.heartbeat import Heartbeat, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.port import FIRST_CURSOR, Store
from openseer_store.reply_limit import USUAL_LIMIT
from tests.store.builders import (
    ANN,
    BOB,
    Clock,
    delta,
    extend,
    finish,
    group,
    names,
    query,
    request,
    results,
    tokens,
    wait,
)


async def test_submitting_a_group_twice_queues_it_once(store: Store) -> None:
    assert await store.submit([group("a", 3)]) == 1
    assert await store.submit([group("a", 3), group("b", 1)]) == 1
    progress = await store.progress(0)
    assert (progress.groups, progress.requests) == (2, 4)
    assert len(await store.claim(ANN, query())) == 4


async def test_groups_are_read_as_submitted_and_in_their_order(store: Store) -> None:
    specs = [
        group("z", 2, Priority(1.5, 0.5, -2.0), ranks=(0.1, 0.2)),
        group("a/b c", 3, lanes=("", "x", "y")),
        *(group(f"{place}", 1) for place in range(200)),
    ]
    assert await store.submit(specs) == 202
    assert await store.groups(0, 0, 500) == specs
    assert await store.groups(0, 1, 3) == specs[1:4]
    assert await store.groups(1, 0, 500) == []


async def test_a_batch_is_complete_once_it_is_sealed_and_has_all_results(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claim, 1)])
    assert not (await store.progress(0)).complete
    await store.seal(0)
    assert (await store.progress(0)).complete


async def test_a_result_has_all_data_of_its_request(store: Store, clock: Clock) -> None:
    spec = group("a", 1)
    await store.submit([spec])
    [claim] = await store.claim(ANN, query())
    await wait(store, clock, 1)
    await store.give_back(ANN, [delta(claim, 2)])
    await wait(store, clock, 1.25)
    [again] = await store.claim(BOB, query())
    await wait(store, clock, 1.5)
    await store.complete(BOB, [finish(again, 3)])
    [result] = await results(store)
    assert (result.request, result.version, result.prompt) == (request("a/0"), spec.version, spec.prompt)
    assert (result.status, result.reason, result.stop_reason) == (Status.OK, FinishReason.STOP, "</s>")
    assert (result.tokens, len(result.logprobs)) == (tokens(0, 5), 20)
    assert (result.metadata, result.sampling) == (spec.metadata, spec.sampling)
    assert (result.enqueued_at, result.finished_at) == (1000.0, 1003.75)
    chunks = [
        (chunk.worker, chunk.start, chunk.end, chunk.claimed_at, chunk.ended_at, chunk.event) for chunk in result.chunks
    ]
    assert chunks == [
        ("ann#1", 0, 2, 1000.0, 1001.0, "give_back"),
        ("bob#1", 2, 5, 1002.25, 1003.75, "complete"),
    ]


async def test_results_come_in_order_after_a_cursor(store: Store) -> None:
    await store.submit([group("a", 5)])
    claims = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claim, 1) for claim in reversed(claims)])
    first = await results(store, limit=2)
    rest = await store.results(0, first[-1].cursor, 10)
    assert [entry.request.index for entry in (*first, *rest[:-1]) if isinstance(entry, Result)] == [4, 3, 2, 1, 0]
    assert isinstance(rest[-1], GroupEnd)
    assert await store.results(0, rest[-1].cursor, 10) == []


async def test_waiting_for_results_ends_with_the_first_one(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    waiting = asyncio.create_task(store.results(0, FIRST_CURSOR, 10, wait_seconds=3600.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await store.complete(ANN, [finish(claim, 1)])
    assert len(await waiting) == 2


async def test_waiting_for_results_ends_with_its_time(store: Store) -> None:
    started = time.monotonic()
    assert await store.results(0, FIRST_CURSOR, 10, wait_seconds=0.05) == []
    assert time.monotonic() - started > 0.04


async def test_only_the_latest_driver_may_acknowledge(store: Store) -> None:
    batch = (await store.open_batch(OpenBatch("v1", "{}")))[0].number

    async def acknowledged() -> int:
        record = await store.batch(batch)
        assert record is not None
        return record.acknowledged

    assert await acknowledged() == FIRST_CURSOR
    old = await store.acquire_driver("old")
    assert await store.acquire_driver("old") == old
    await store.acknowledge(batch, 3, old)
    new = await store.acquire_driver("new")
    assert new > old
    with pytest.raises(DriverFencedError, match="another driver"):
        await store.acknowledge(batch, 5, old)
    await store.acknowledge(batch, 2, new)
    assert await acknowledged() == 3
    await store.acknowledge(batch, 9, new)
    assert await acknowledged() == 9


async def test_an_old_driver_neither_submits_nor_seals(store: Store) -> None:
    old = await store.acquire_driver("old")
    assert await store.submit([group("a", 1)], old) == 1
    new = await store.acquire_driver("new")
    with pytest.raises(DriverFencedError, match="another driver"):
        await store.submit([group("b", 1)], old)
    with pytest.raises(DriverFencedError, match="another driver"):
        await store.seal(0, old)
    progress = await store.progress(0)
    assert (progress.groups, progress.sealed) == (1, False)
    assert await store.submit([group("b", 1)], new) == 1
    await store.seal(0, new)
    assert (await store.progress(0)).sealed


async def test_heartbeats_are_kept_until_a_worker_deregisters(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 2)])
    await store.claim(BOB, query())
    busy = Heartbeat(WorkerState.BUSY, WorkerMetrics({"tokens_per_second": 12.5, "slots": 4, "device": "cpu"}))
    await store.heartbeat(BOB, busy)
    await wait(store, clock, 2)
    await store.heartbeat(ANN, Heartbeat(WorkerState.STARTING))
    assert await store.workers() == [
        WorkerStatus("ann", "1", 1002.0, 0, Heartbeat(WorkerState.STARTING)),
        WorkerStatus("bob", "1", 1000.0, 2, busy),
    ]
    await store.deregister(ANN)
    assert [status.name for status in await store.workers()] == ["bob"]


async def test_an_earlier_boot_does_not_deregister_a_later_one(store: Store) -> None:
    await store.heartbeat(WorkerId("ann", "2"), Heartbeat(WorkerState.IDLE))
    await store.deregister(ANN)
    assert [status.boot for status in await store.workers()] == ["2"]


async def test_a_drain_request_reaches_its_worker_and_ends_with_it(store: Store) -> None:
    assert not (await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE))).drain
    await store.request_drain(ANN.name)
    assert (await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE))).drain
    assert not (await store.heartbeat(BOB, Heartbeat(WorkerState.IDLE))).drain
    await store.deregister(ANN)
    assert not (await store.heartbeat(WorkerId(ANN.name, "2"), Heartbeat(WorkerState.IDLE))).drain


async def test_the_journal_has_every_event_in_order(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 2)])
    first, _ = await store.claim(ANN, query())
    await store.give_back(ANN, [delta(first, 3)])
    await wait(store, clock, 11)
    await store.reap(3)
    await store.end(0)
    entries = await store.journal(0, 0, 100)
    assert [(entry.event, entry.request, entry.length) for entry in entries] == [
        ("claim", "0/a/0", 0),
        ("claim", "0/a/1", 0),
        ("give_back", "0/a/0", 3),
        ("reap", "0/a/1", 0),
        ("abort", "0/a/0", 3),
        ("abort", "0/a/1", 0),
    ]
    assert (entries[2].at, entries[2].worker, entries[2].fence) == (1000.0, "ann#1", first.fence)
    assert await store.journal(0, 2, 2) == entries[2:4]


async def test_a_record_has_the_state_of_a_request(store: Store) -> None:
    await store.submit([group("a", 1)])
    record = await store.record(request("a/0"))
    assert (record.state, record.fence, record.tokens, record.chunks) == (State.QUEUED, 0, b"", ())
    [claim] = await store.claim(ANN, query())
    record = await store.record(request("a/0"))
    assert (record.state, record.fence) == (State.LEASED, claim.fence)


async def test_a_record_has_tokens_and_scores_from_any_token_on(store: Store) -> None:
    await store.submit([group("a", 2)])
    for claim in await store.claim(ANN, query()):
        await store.complete(ANN, [finish(claim, 5)])
        whole = await store.record(claim.request)
        items = len(whole.logprobs) // 5
        for start in (0, 2, 5, 7):
            rest = await store.record(claim.request, start)
            assert (rest.tokens, rest.logprobs) == (whole.tokens[4 * start :], whole.logprobs[items * start :])
            for most in (0, 2, 9):
                part, end = await store.record(claim.request, start, most), start + most
                expected = whole.tokens[4 * start : 4 * end], whole.logprobs[items * start : items * end]
                assert (part.tokens, part.logprobs) == expected


async def test_lengths_of_many_requests_are_returned_by_one_call(store: Store) -> None:
    await store.submit([group("a", 2), group("b", 1)])
    claims = await store.claim(ANN, query(2))
    await extend(store, ANN, [delta(claims[0], 3)])
    await store.complete(ANN, [finish(claims[1], 5)])
    names = ["b/0", "nobody/0", "a/0", "a/1", "a/2"]
    told = dict(zip(names, await store.lengths(list(map(request, names))), strict=True))
    stored = {str(claim.request).partition("/")[2]: length for claim, length in zip(claims, (3, 5), strict=True)}
    assert told == dict.fromkeys(names, 0) | stored
    assert await store.lengths([]) == []


def test_an_answer_has_room_for_the_longest_scores_after_others() -> None:
    assert USUAL_LIMIT.bytes > REPLY_BYTES + MOST_SCORE_BYTES + ITEM_BYTES * MAX_PROMPT_TOKENS


async def test_an_unknown_group_is_a_key_error(store: Store) -> None:
    with pytest.raises(KeyError):
        await store.group_view(GroupId(0, "nobody"))
    with pytest.raises(KeyError):
        await store.record(request("nobody/0"))


async def test_a_purged_job_is_empty_and_its_old_fences_are_void(store: Store) -> None:
    await store.submit([group("a", 1)])
    [old] = await store.claim(ANN, query())
    await store.heartbeat(ANN, Heartbeat(WorkerState.BUSY))
    await store.purge()
    assert (await store.progress(0)).requests == 0
    assert await store.workers() == []
    assert await results(store) == await store.journal(0, 0, 1) == []
    await store.submit([group("a", 1)])
    assert names(await store.claim(BOB, query())) == ["a/0"]
    assert (await extend(store, ANN, [delta(old, 1)])).replies[0].outcome is WriteOutcome.LOST


async def test_the_clock_is_the_stores(store: Store, clock: Clock) -> None:
    assert await store.now() == clock.seconds


# ---- data of a sealed batch that an acknowledgement frees or keeps


async def ended(store: Store, names: list[str], *, finished: int) -> int:
    """A trainer's batch with groups of two requests, the first `finished` of which have ended."""
    record, _ = await store.open_batch(OpenBatch("v1", "{}"))
    await store.submit([group(name, 2, batch=record.number) for name in names])
    claims = await store.claim(ANN, query(finished))
    replies = await store.complete(ANN, [finish(claim, 3) for claim in claims])
    assert {reply.outcome for reply in replies} == {WriteOutcome.OK}
    return record.number


async def test_groups_are_freed_when_their_end_is_acknowledged_and_sealed(store: Store) -> None:
    batch = await ended(store, ["a", "b"], finished=3)
    entries = await store.results(batch, 0, 10)
    [end] = [entry for entry in entries if isinstance(entry, GroupEnd)]
    await store.acknowledge(batch, entries[-1].cursor)
    assert await store.results(batch, 0, 10) == entries  # a turn may follow
    await store.seal(batch)
    await store.acknowledge(batch, end.cursor - 1)
    assert await store.results(batch, 0, 10) == []
    a, b = GroupId(batch, "a"), GroupId(batch, "b")
    record = await store.record(RequestId(a, 0))
    assert (record.state, record.tokens, record.logprobs, record.chunks) == (State.DONE, b"", b"", ())
    assert (await store.record(RequestId(b, 0))).tokens == tokens(0, 3)
    assert await store.spec(a) is None
    assert [spec.id for spec in await store.groups(batch, 0, 10)] == [b]
    assert (await store.group_view(a)).finished == 2


async def test_a_freed_group_keeps_its_name_and_takes_no_turn(store: Store) -> None:
    batch = await ended(store, ["a", "b"], finished=2)
    await store.seal(batch)
    await store.acknowledge(batch, (await store.results(batch, 0, 10))[-1].cursor)
    with pytest.raises(FreedError):
        await store.go_on(RequestId(GroupId(batch, "a"), 0), 0, b"")
    assert await store.submit([group("a", 2, batch=batch)]) == 0
    assert await store.judge(batch, {"a": True}) == 1
    assert await store.group_names(batch, 0, 10) == ["a", "b"]


async def test_the_rest_of_a_partly_freed_batch_is_read_and_forgotten(store: Store) -> None:
    batch = await ended(store, ["a", "b"], finished=2)
    await store.seal(batch)
    first = (await store.results(batch, 0, 10))[-1].cursor
    await store.acknowledge(batch, first)
    await store.complete(ANN, [finish(claim, 4) for claim in await store.claim(ANN, query())])
    rest = await store.results(batch, 0, 10)
    assert [entry.tokens for entry in rest if isinstance(entry, Result)] == [tokens(0, 4)] * 2
    found = await store.batch(batch)
    assert found is not None
    assert (found.swept, found.progress.complete, found.progress.ok) == (first, True, 4)
    await store.acknowledge(batch, rest[-1].cursor)
    await store.forget(batch)
    assert await store.batches() == []


async def test_a_group_that_continued_is_freed_only_with_its_last_end(store: Store) -> None:
    batch = await ended(store, ["a"], finished=2)
    first = (await store.results(batch, 0, 10))[-1].cursor
    request = RequestId(GroupId(batch, "a"), 0)
    await store.go_on(request, 0, b"")
    await store.complete(ANN, [finish(claim, 2) for claim in await store.claim(ANN, query())])
    await store.seal(batch)
    await store.acknowledge(batch, first)
    [again, _] = await store.results(batch, first, 10)
    assert isinstance(again, Result)
    assert again.tokens == tokens(0, 5)


async def test_the_batch_of_a_driver_keeps_everything_for_its_audit(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claim, 3)])
    await store.seal(0)
    entries = await store.results(0, 0, 10)
    await store.acknowledge(0, entries[-1].cursor)
    assert await store.results(0, 0, 10) == entries
    assert (await store.record(RequestId(GroupId(0, "a"), 0))).tokens == tokens(0, 3)
