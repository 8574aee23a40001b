"""A trainer's operations on batches, the same on every store: open, judge, carry, continue, change version, forget."""

from dataclasses import replace

import pytest

from openseer_core.errors import BatchClosedError, FleetSpecMovedError, NameTakenError, RequestStateError
from openseer_core.ids import PARKED_BATCH, GroupId, WorkerId
from openseer_core.queue.batch import GroupEnd, OpenBatch
from openseer_core.queue.group import GroupSpec, Priority
from openseer_core.queue.messages import APPEND, Rescore, WriteOutcome
from openseer_core.queue.states import Event, State, Status
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_store.port import Store
from tests.store.builders import (
    ANN,
    BOB,
    PROBE,
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


async def opened(store: Store, version: str = "v1", key: str = "") -> int:
    record, _ = await store.open_batch(OpenBatch(version, '{"metadata": {"step": 1}}', key))
    return record.number


async def test_batches_are_numbered_and_a_key_returns_the_same_one(store: Store, clock: Clock) -> None:
    first = await opened(store, key="a")
    await wait(store, clock, 5)
    assert await opened(store) == first + 1
    again, new = await store.open_batch(OpenBatch("v9", "{}", "a"))
    assert (again.number, again.version, again.opened_at, new) == (first, "v1", 1000.0, False)
    assert [record.number for record in await store.batches()] == [first, first + 1]
    assert await store.batch(99) is None
    found = await store.batch_of_key("a")
    assert found is not None
    assert found.number == first
    assert await store.batch_of_key("b") is None
    await store.forget(first)
    assert await store.batch_of_key("a") == await store.batch(first)


async def test_a_sealed_batch_refuses_new_groups_and_accepts_repeated_ones(store: Store) -> None:
    batch = await opened(store)
    await store.submit([group("a", batch=batch)])
    await store.seal(batch)
    assert await store.submit([group("a", batch=batch)]) == 0
    with pytest.raises(BatchClosedError, match=f"batch {batch} takes no more groups"):
        await store.submit([group("b", batch=batch)])


async def test_the_end_of_a_group_counts_the_outcomes_of_its_requests(store: Store, clock: Clock) -> None:
    batch = await opened(store)
    await store.submit([group("a", 3, batch=batch)])
    claims = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claims[0], 5), finish(claims[1], 2, status=Status.INFRA_FAILED)])
    await wait(store, clock, 3)
    await store.end_groups([GroupId(batch, "a")], Event.CANCEL)
    entries = await store.results(batch, 0, 10)
    assert isinstance(entries[-1], GroupEnd)
    assert entries[-1] == GroupEnd(4, GroupId(batch, "a"), 1003.0, 3, ok=1, aborted=1, infra_failed=1, carried_over=0)
    assert not entries[-1].whole
    counts = await store.progress(batch)
    assert (counts.groups_ended, counts.groups_whole, counts.longest, counts.entries) == (1, 0, 5, 4)


async def test_the_expected_tokens_of_a_batch_follow_its_groups(store: Store) -> None:
    async def told(batch: int = 0) -> tuple[int, int, int, int]:
        counts = await store.progress(batch)
        return counts.open_known, counts.open_expected, counts.ok_tokens, counts.closed_tokens

    await store.submit([group("a", 3), group("b", 2), replace(group("c", 2), longest_earlier=7)])
    assert await told() == (2, 14, 0, 0)  # only c has an estimate
    claims = {str(claim.request): claim for claim in await store.claim(ANN, query(7))}
    [reply] = await store.complete(ANN, [finish(claims["0/a/0"], 5)])
    assert reply.view is not None
    assert await told() == (4, 14 + 2 * 5, 5, 5)
    await store.complete(ANN, [finish(claims["0/b/0"], 3, status=Status.INFRA_FAILED)])
    assert await told() == (4, 24, 5, 8)
    news = Rescore(reply.view.with_running(9), Priority(8.0))
    await extend(store, ANN, [delta(claims["0/a/1"], 9)], [news])
    assert await told() == (4, 14 + 2 * 9, 5, 8)
    await store.go_on(request("a/0"), 0, tokens(5, 2))
    assert await told() == (5, 14 + 3 * 9, 0, 1)
    await store.end_groups([GroupId(0, "a"), GroupId(0, "b"), GroupId(0, "c")], Event.CANCEL)
    assert await told() == (0, 0, 0, 1 + 7 + 9)


async def test_cancelling_one_request_leaves_its_siblings_alone(store: Store) -> None:
    await store.submit([group("a", 3)])
    [claim] = await store.claim(ANN, query(1))
    assert await store.end_groups([GroupId(0, "a"), GroupId(0, "nobody")], Event.CANCEL, 0) == 1
    assert (await extend(store, ANN, [delta(claim, 1)])).replies[0].outcome is WriteOutcome.LOST
    assert names(await store.claim(ANN, query())) == ["a/1", "a/2"]
    [ended] = await results(store)
    assert (ended.request, ended.reason.value) == (request("a/0"), "cancelled")


async def test_a_finished_request_continues_with_appended_tokens(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claim, 4)])
    await wait(store, clock, 60)
    assert await store.go_on(request("a/0"), 0, tokens(4, 2))
    assert await store.go_on(request("a/0"), 0, tokens(4, 2))
    [again] = await store.claim(ANN, query())
    assert (again.tokens, again.fence > claim.fence, again.appended) == (tokens(0, 6), True, 2)
    await store.complete(ANN, [finish(again, 3)])
    first, second = await results(store)
    assert (first.turn, first.tokens, second.turn, second.tokens) == (0, tokens(0, 4), 1, tokens(0, 9))
    assert [(chunk.event, chunk.start, chunk.end) for chunk in second.chunks] == [
        ("complete", 0, 4),
        (APPEND, 4, 6),
        ("complete", 6, 9),
    ]
    assert len(second.logprobs) == len(second.tokens)
    for other in (b"", tokens(4, 1), tokens(4, 3), tokens(5, 2)):
        with pytest.raises(RequestStateError, match="turn 0 was continued with other tokens before"):
            await store.go_on(request("a/0"), 0, other)
    assert await store.go_on(request("a/0"), 0, tokens(4, 2))
    with pytest.raises(RequestStateError, match="turn 5 has not ended"):
        await store.go_on(request("a/0"), 5, b"")
    with pytest.raises(RequestStateError, match="has no room: 9"):
        await store.go_on(request("a/0"), 1, tokens(9, 91))
    with pytest.raises(KeyError):
        await store.go_on(request("nobody/0"), 0, b"")


async def test_a_claim_counts_appended_tokens_until_a_lease_generates(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    assert claim.appended == 0
    await store.complete(ANN, [finish(claim, 4)])
    assert await store.go_on(request("a/0"), 0, tokens(4, 2))
    [first] = await store.claim(ANN, query(number=1))
    await store.give_back(ANN, [delta(first, 0)])
    [second] = await store.claim(ANN, query(number=2))
    await store.give_back(ANN, [delta(second, 1)])
    [third] = await store.claim(ANN, query(number=3))
    assert [lease.appended for lease in (first, second, third)] == [2, 2, 0]


async def test_no_lease_is_held_while_an_environment_works(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claim, 4)])
    assert (await store.load()).running == 0
    assert (await store.record(request("a/0"))).state is State.DONE


async def test_carried_groups_wait_and_continue_in_the_batch_that_takes_them(store: Store) -> None:
    one, two = await opened(store), await opened(store, "v2")
    await store.submit([group("a", 2, batch=one), group("b", 1, batch=one)])
    done, half, whole = await store.claim(ANN, query())
    await store.complete(ANN, [finish(done, 5), finish(whole, 1)])
    await extend(store, ANN, [delta(half, 3)])
    everything = [GroupId(one, "a"), GroupId(one, "b"), GroupId(one, "nobody")]
    assert await store.carry(everything, PARKED_BATCH, "v1") == 1
    assert await store.carry(everything, PARKED_BATCH, "v1") == 0
    assert [result.status.value for result in await results(store, one)] == ["ok", "ok", "carried_over"]
    assert (await store.progress(one)).groups_carried == 1
    assert await store.claim(BOB, query(version="v2")) == []
    await store.forget(one)
    parked = [GroupId(PARKED_BATCH, name) for name in await store.group_names(PARKED_BATCH, 0, 10)]
    assert await store.carry(parked, two, "v2") == 1
    assert await store.group_names(PARKED_BATCH, 0, 10) == []
    [claim] = await store.claim(BOB, query(version="v2"))
    assert (str(claim.request), claim.tokens) == (f"{two}/a~{one}/1", tokens(0, 3))
    assert claim.fence > half.fence  # files of a lease are named by its fence, and groups keep their folder
    await store.complete(BOB, [finish(claim, 2)])
    kept, grown = await results(store, two)
    assert (kept.tokens, grown.tokens) == (tokens(0, 5), tokens(0, 5))
    assert [(chunk.version, chunk.start, chunk.end) for chunk in grown.chunks] == [("v1", 0, 3), ("v2", 3, 5)]
    told = [(entry.event, entry.request, entry.length) for entry in await store.journal(two, 0, 10)]
    name = f"{two}/a~{one}"
    assert told == [("complete", f"{name}/0", 5), ("claim", f"{name}/1", 3), ("complete", f"{name}/1", 5)]


@pytest.mark.parametrize(
    "other", [group("a", prompt_tokens=17), group("a", 3), group("a", max_tokens=99)], ids=["prompt", "size", "tokens"]
)
async def test_another_group_of_a_taken_name_is_refused(store: Store, other: GroupSpec) -> None:
    assert await store.submit([group("a", 2)]) == 1
    moved = replace(group("a", 2, PROBE), enqueued_at=2000.0, ordinal=7)
    assert await store.submit([moved, group("b", 1)]) == 1
    with pytest.raises(NameTakenError, match="group a: batch 0 has a group of that name"):
        await store.submit([group("c", 1), other])
    assert await store.group_names(0, 0, 10) == ["a", "b", "c"]


async def test_a_carried_group_does_not_collide_with_one_of_its_name(store: Store) -> None:
    one, two, three = await opened(store), await opened(store), await opened(store)
    await store.submit([group("a", 1, batch=one)])
    await store.carry([GroupId(one, "a")], PARKED_BATCH, "v1")
    await store.submit([group("a", 1, batch=two, prompt_tokens=17), group("a", 1, batch=three, prompt_tokens=18)])
    await store.carry([GroupId(two, "a")], PARKED_BATCH, "v1")
    parked = [GroupId(PARKED_BATCH, name) for name in await store.group_names(PARKED_BATCH, 0, 10)]
    assert await store.carry(parked, three, "v1") == 2
    assert await store.group_names(three, 0, 10) == ["a", f"a~{one}", f"a~{two}"]
    claims = await store.claim(ANN, query())
    assert sorted(claim.prompt for claim in claims) == [tokens(0, 16), tokens(0, 17), tokens(0, 18)]
    assert claims[1].request.group.origin in (GroupId(one, "a"), GroupId(two, "a"))
    await store.carry([GroupId(three, f"a~{one}")], PARKED_BATCH, "v1")
    assert await store.group_names(PARKED_BATCH, 0, 10) == [f"a~{one}"]


async def test_stale_groups_are_not_carried_over(store: Store) -> None:
    one, two = await opened(store), await opened(store, "v3")
    await store.submit([group("a-old", 1, batch=one), group("b-new", 1, batch=one)])
    [claim] = await store.claim(ANN, query(1))
    await store.give_back(ANN, [delta(claim, 3)])
    await store.carry([GroupId(one, "a-old"), GroupId(one, "b-new")], PARKED_BATCH, "v1")
    parked = [GroupId(PARKED_BATCH, name) for name in await store.group_names(PARKED_BATCH, 0, 10)]
    assert await store.carry(parked, two, "v3", ("v1",)) == 1
    assert await store.group_names(two, 0, 10) == [f"b-new~{one}"]
    assert (await store.progress(two)).groups_stale == 1
    assert await store.group_names(PARKED_BATCH, 0, 10) == []


async def test_a_change_of_version_voids_leases_and_requeues_requests(store: Store) -> None:
    batch = await opened(store)
    await store.submit([group("a", 2, batch=batch)])
    running, _ = await store.claim(ANN, query())
    await extend(store, ANN, [delta(running, 3)])
    await store.change_version(batch, "v2")
    assert (await extend(store, ANN, [delta(running, 1)])).replies[0].outcome is WriteOutcome.LOST
    assert await store.claim(ANN, query()) == []
    assert len(await store.claim(BOB, query(version="v2"))) == 2
    record = await store.batch(batch)
    assert record is not None
    assert record.version == "v2"


async def test_groups_submitted_after_a_change_are_for_the_batchs_own_version(store: Store) -> None:
    batch = await opened(store)
    await store.change_version(batch, "v2")
    await store.submit([group("late", 1, batch=batch, version="v1")])
    assert await store.claim(ANN, query(version="v1")) == []
    [claim] = await store.claim(ANN, query(version="v2"))
    await store.complete(ANN, [finish(claim, 2)])
    [result] = await results(store, batch)
    assert (result.version, result.chunks[0].version) == ("v2", "v2")


@pytest.mark.parametrize("given_back", [True, False])
async def test_an_open_lease_with_tokens_of_a_stale_version_aborts(store: Store, given_back: bool) -> None:
    batch = await opened(store)
    await store.submit([group("a-empty", 1, batch=batch), group("b-old", 1, batch=batch)])
    empty, old = await store.claim(ANN, query())
    if given_back:
        await store.give_back(ANN, [delta(empty, 0), delta(old, 0)])
        empty, old = await store.claim(ANN, query())
    await extend(store, ANN, [delta(old, 3)])
    await store.change_version(batch, "v2", ("v1",))
    [ended] = await results(store, batch)
    assert (ended.request, ended.status) == (request("b-old/0", batch), Status.ABORTED)
    assert names(await store.claim(BOB, query(version="v2"))) == ["a-empty/0"]


async def test_the_latest_verdict_on_a_group_counts(store: Store) -> None:
    batch = await opened(store)
    await store.submit([group("a", batch=batch), group("b", batch=batch)])
    assert await store.judge(batch, {"a": True, "b": False, "nobody": True}) == 2
    assert await store.judge(batch, {"b": True}) == 1
    counts = await store.progress(batch)
    assert (counts.valid, counts.invalid) == (2, 0)
    assert await store.verdict(GroupId(batch, "b")) is True
    assert await store.verdict(GroupId(batch, "c")) is None


async def test_a_forgotten_batch_leaves_its_counts_and_nothing_else(store: Store) -> None:
    batch = await opened(store, key="k")
    await store.submit([group(f"g{number}", 2, batch=batch) for number in range(40)])
    claims = await store.claim(ANN, query(10))
    await store.complete(ANN, [finish(claim, 3) for claim in claims[:5]])
    await store.forget(batch)
    assert await store.batches() == []
    record = await store.batch(batch)
    assert record is not None
    assert (record.forgotten, record.progress.ok, record.progress.aborted) == (True, 5, 75)
    assert await store.group_names(batch, 0, 10) == []
    assert await store.results(batch, 0, 10) == []
    assert (await store.load()).waiting == {}
    assert (await extend(store, ANN, [delta(claims[7], 1)])).replies[0].outcome is WriteOutcome.LOST
    with pytest.raises(BatchClosedError):
        await store.submit([group("late", batch=batch)])
    assert not (await store.open_batch(OpenBatch("v1", "{}", "k")))[1]


async def test_a_group_grows_once_by_a_repeated_call(store: Store) -> None:
    batch = await opened(store)
    await store.submit([group("a", 1, batch=batch)])
    assert len(await store.claim(ANN, query())) == 1
    grown = group("a", 3, batch=batch)
    await store.grow(grown, 1)
    await store.grow(grown, 1)
    assert (await store.progress(batch)).requests == 3
    assert names(await store.claim(ANN, query())) == ["a/1", "a/2"]
    assert await store.submit([group("a", 1, batch=batch)]) == 0
    with pytest.raises(NameTakenError):
        await store.submit([grown])


async def test_a_forgotten_batch_takes_no_carried_groups(store: Store) -> None:
    one, gone = await opened(store), await opened(store)
    await store.submit([group("a", 1, batch=one)])
    await store.forget(gone)
    assert await store.carry([GroupId(one, "a")], gone, "v1") == 0
    assert names(await store.claim(ANN, query())) == ["a/0"]


async def test_a_fleet_spec_is_replaced_only_by_its_next_revision(store: Store) -> None:
    assert (await store.fleet_spec()).revision == 0
    assert await store.swap_fleet_spec(FleetSpec(revision=1, version="v1"))
    assert not await store.swap_fleet_spec(FleetSpec(revision=1, version="v2"))
    assert not await store.swap_fleet_spec(FleetSpec(revision=3, version="v3"))
    assert await store.swap_fleet_spec(FleetSpec(revision=2, version="v2", rest="sleep"))
    assert await store.fleet_spec() == FleetSpec(revision=2, version="v2", rest="sleep")


async def test_an_action_that_follows_from_an_earlier_fleet_spec_does_nothing(store: Store) -> None:
    batch = await opened(store)
    await store.submit([group("a", 1, batch=batch)])
    assert await store.swap_fleet_spec(FleetSpec(revision=1))
    with pytest.raises(FleetSpecMovedError):
        await store.end(batch, Event.ABORT, 0)
    with pytest.raises(FleetSpecMovedError):
        await store.change_version(batch, "v2", (), 0)
    with pytest.raises(FleetSpecMovedError):
        await store.request_drain(ANN.name, 0)
    assert not (await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE))).drain
    await store.change_version(batch, "v2", (), 1)
    assert names(await store.claim(ANN, query(version="v2"))) == ["a/0"]
    await store.request_drain(ANN.name, 1)
    assert (await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE))).drain
    assert await store.end(batch, Event.ABORT, 1) == 1


async def test_waiting_requests_are_counted_by_version(store: Store) -> None:
    await store.submit([group("a", 3, version="v1"), group("b", 2, version="v2:x")])
    await store.claim(ANN, query(1))
    load = await store.load()
    assert (load.waiting, load.running) == ({"v1": 2, "v2:x": 2}, 1)


async def test_idle_and_busy_time_is_summed_over_boots_and_departures(store: Store) -> None:
    await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE, idle_seconds=2.0))
    await store.heartbeat(ANN, Heartbeat(WorkerState.BUSY, idle_seconds=3.5, busy_seconds=1.0))
    await store.heartbeat(ANN, Heartbeat(WorkerState.BUSY, idle_seconds=3.5, busy_seconds=1.0))
    await store.deregister(ANN)
    await store.heartbeat(WorkerId("ann", "2"), Heartbeat(WorkerState.IDLE, idle_seconds=0.5))
    await store.heartbeat(BOB, Heartbeat(WorkerState.BUSY, busy_seconds=4.0))
    load = await store.load()
    assert (load.idle_seconds, load.busy_seconds) == (4.0, 5.0)


async def test_a_batch_takes_the_parked_groups_until_all_have_moved(store: Store) -> None:
    record, _ = await store.open_batch(OpenBatch("v1", "{}", "two", carry=True))
    assert record.takes_parked
    again, new = await store.open_batch(OpenBatch("v1", "{}", "two", carry=True))
    assert (again.takes_parked, new) == (True, False)
    await store.carry([], record.number, "v1")
    done = await store.batch(record.number)
    assert done is not None
    assert not done.takes_parked
