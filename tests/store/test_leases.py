"""The course of a lease: extended, given back, lost, ended; the same on every store."""

import pytest

from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.messages import Delta, Rescore, WriteOutcome
from openseer_core.queue.states import State, Status
from openseer_store.port import Store
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


async def test_extended_tokens_are_kept_and_the_lease_renewed(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await wait(store, clock, 9)
    reply = await extend(store, ANN, [delta(claim, 3)])
    assert [(item.outcome, item.have) for item in reply.replies] == [(WriteOutcome.OK, 3)]
    await wait(store, clock, 9)
    assert await store.reap(3) == 0
    assert (await store.record(claim.request)).tokens == tokens(0, 3)
    assert (await store.progress(0)).tokens == 3


async def test_a_repeated_or_overlapping_delta_adds_only_new_tokens(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    for count in (3, 3, 5, 2):
        await extend(store, ANN, [delta(claim, count)])
    record = await store.record(claim.request)
    assert record.tokens == tokens(0, 5)
    assert len(record.logprobs) == len(record.tokens)


async def test_a_gap_is_refused_with_the_stored_length(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    reply = await extend(store, ANN, [delta(claim, 2), delta(claim, 2, offset=4)])
    assert [(item.outcome, item.have) for item in reply.replies] == [(WriteOutcome.OK, 2), (WriteOutcome.GAP, 2)]
    [back] = await store.give_back(ANN, [delta(claim, 1, offset=9)])
    [end] = await store.complete(ANN, [finish(claim, 1, offset=9)])
    assert (back.outcome, end.outcome) == (WriteOutcome.GAP, WriteOutcome.GAP)
    assert (await store.record(claim.request)).state is State.LEASED


async def test_a_reaped_lease_goes_to_another_worker_with_its_tokens(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await extend(store, ANN, [delta(claim, 3)])
    await wait(store, clock, 11)
    [again] = await store.claim(BOB, query())
    assert (again.tokens, again.fence > claim.fence) == (tokens(0, 3), True)


async def test_a_stale_worker_cannot_write(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await wait(store, clock, 11)
    await store.claim(BOB, query())
    reply = await extend(store, ANN, [delta(claim, 3)])
    [back] = await store.give_back(ANN, [delta(claim, 3)])
    [end] = await store.complete(ANN, [finish(claim, 3)])
    assert {reply.replies[0].outcome, back.outcome, end.outcome} == {WriteOutcome.LOST}
    assert (await store.record(claim.request)).tokens == b""
    assert await results(store) == []


async def test_after_a_reap_the_old_holder_has_lost_its_lease(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await wait(store, clock, 11)
    assert await store.reap(3) == 1
    reply = await extend(store, ANN, [delta(claim, 3)])
    [end] = await store.complete(ANN, [finish(claim, 3)])
    assert (reply.replies[0].outcome, end.outcome) == (WriteOutcome.LOST, WriteOutcome.LOST)


async def test_a_write_to_an_unknown_group_is_lost(store: Store) -> None:
    ghost = Delta(request("ghost/0"), 7, 0, tokens(0, 1))
    view = GroupView(GroupId(0, "ghost"), 1, 0, 1, 10, 0.0)
    reply = await extend(store, ANN, [ghost], [Rescore(view, Priority(0.0))])
    assert (reply.replies[0].outcome, reply.views) == (WriteOutcome.LOST, ())


async def test_giving_back_twice_changes_nothing_more(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    for _ in range(2):
        [reply] = await store.give_back(ANN, [delta(claim, 3)])
        assert (reply.outcome, reply.have) == (WriteOutcome.OK, 3)
    record = await store.record(claim.request)
    assert (record.state, [chunk.event for chunk in record.chunks]) == (State.QUEUED, ["give_back"])
    assert names(await store.claim(BOB, query())) == ["a/0"]


async def test_scored_tokens_are_stored_once_after_their_worker_died(store: Store, clock: Clock) -> None:
    """They outnumber the tokens that the engine adds to the prompt, for which alone a claim reserves blocks."""
    await store.submit([group("a", 1, prompt_tokens=31, max_tokens=1)])
    assert await store.claim(ANN, query(blocks=1)) == []
    [lost] = await store.claim(ANN, query(blocks=2))
    await wait(store, clock, 11)
    [claim] = await store.claim(BOB, query(blocks=2))
    assert claim.tokens == b""
    for worker, leased in ((ANN, lost), (BOB, claim), (BOB, claim)):
        await store.complete(worker, [finish(leased, 30)])
    [result] = await results(store)
    assert (result.tokens, result.logprobs) == (tokens(0, 30), delta(claim, 30).logprobs)
    assert ((await store.progress(0)).tokens, (await store.progress(0)).complete) == (30, False)
    view = await store.group_view(claim.request.group)
    assert (view.finished, estimate(view)) == (1, 1)


async def test_a_repeated_complete_stores_one_result(store: Store) -> None:
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    for _ in range(2):
        [reply] = await store.complete(ANN, [finish(claim, 3)])
        assert (reply.outcome, reply.have) == (WriteOutcome.OK, 3)
    assert len(await results(store)) == 1


async def test_a_reap_of_everything_counts_no_loss_for_any_number_of_leases(store: Store) -> None:
    await store.submit([group("a", 120)])
    assert len(await store.claim(ANN, query(200))) == 120
    assert await store.reap(0, everything=True) == 120
    assert (await extend(store, ANN, [])).fleet_load.inflight == 0
    assert len(await store.claim(BOB, query(200))) == 120


async def test_an_aborted_batch_ends_every_request_once_with_its_partial_tokens(store: Store) -> None:
    await store.submit([group(f"{place:02}", 2) for place in range(20)])
    await store.submit([group("other", 1, batch=1)])
    done, running = await store.claim(ANN, query(2))
    await store.complete(ANN, [finish(done, 3)])
    await extend(store, ANN, [delta(running, 2)])
    assert await store.end(0) == 39
    assert await store.end(0) == 0
    progress = await store.progress(0)
    assert (progress.ok, progress.aborted, progress.closed) == (1, 39, 40)
    ended = await results(store)
    assert len({result.request for result in ended}) == 40
    assert {result.tokens for result in ended if result.request == running.request} == {tokens(0, 2)}
    assert (await extend(store, ANN, [delta(running, 4)])).replies[0].outcome is WriteOutcome.LOST
    assert names(await store.claim(ANN, query())) == ["other/0"]


@pytest.mark.parametrize("status", [Status.ABORTED, Status.INFRA_FAILED])
async def test_a_worker_can_end_a_request_without_a_whole_response(store: Store, status: Status) -> None:
    await store.submit([group("a", 2)])
    [claim] = await store.claim(ANN, query(1))
    [reply] = await store.complete(ANN, [finish(claim, 3, status=status)])
    assert reply.view == claim.view  # the length of the group's responses is still unknown
    [result] = await results(store)
    assert (result.status, result.tokens) == (status, tokens(0, 3))
