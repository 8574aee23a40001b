"""Leases that end without a report of their holder: only evidence of a death counts against the request."""

from openseer_core.ids import WorkerId
from openseer_core.model.losses import PAST_BOOTS
from openseer_core.queue.messages import EXPIRY_LIMIT, WriteOutcome
from openseer_core.queue.states import FinishReason, State, Status
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_store.port import Store
from tests.store.builders import ANN, BOB, Clock, delta, extend, finish, group, names, query, results, tokens, wait

BUSY = Heartbeat(WorkerState.BUSY)


def boot(number: int) -> WorkerId:
    """One boot of a worker that restarts repeatedly."""
    return WorkerId("ann", f"boot-{number}")


async def dies(store: Store, clock: Clock, number: int, *, max_losses: int = 2, first: bool = True) -> int:
    """A boot claims all requests, writes two tokens of each, and ends; returns the number of its claims."""
    await store.heartbeat(boot(number), BUSY)
    claims = await store.claim(boot(number), query(max_losses=max_losses))
    await extend(store, boot(number), [delta(claim, 2) for claim in claims])
    if not first:
        await wait(store, clock, 11)
        await store.reap(max_losses)
    return len(claims)


async def test_a_request_that_lost_too_many_workers_is_reported_as_failed(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    for number in range(3):
        assert await dies(store, clock, number) == 1
    assert await dies(store, clock, 3) == 0
    [result] = await results(store)
    assert (result.status, result.reason) == (Status.INFRA_FAILED, FinishReason.INFRA_FAILED)
    assert result.tokens == tokens(0, 6)
    assert [chunk.event for chunk in result.chunks] == ["reap", "reap", "fail"]
    assert result.ended_by == "losses of its worker: more than spec.failurePolicy.requestRetries; leases taken back: 3"
    assert (await store.progress(0)).infra_failed == 1


async def test_a_new_boot_claims_the_dead_ones_requests_at_once(store: Store) -> None:
    await store.submit([group("a", 3), group("b", 1)])
    await store.heartbeat(boot(0), BUSY)
    held = await store.claim(boot(0), query(3))
    [other] = await store.claim(BOB, query())
    await extend(store, boot(0), [delta(claim, 2) for claim in held])
    await store.heartbeat(boot(1), BUSY)
    again = await store.claim(boot(1), query())
    assert names(again) == names(held)
    assert {claim.tokens for claim in again} == {tokens(0, 2)}
    assert (await extend(store, BOB, [delta(other, 1)])).replies[0].outcome is WriteOutcome.OK


async def test_an_expired_lease_counts_once_a_new_boot_reports(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    for number in range(3):
        await dies(store, clock, number, first=False)
    assert await results(store) == []
    await store.heartbeat(boot(3), BUSY)
    assert [result.status for result in await results(store)] == [Status.INFRA_FAILED]


async def test_leases_that_expire_in_stalls_count_only_at_a_high_limit(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    for _ in range(EXPIRY_LIMIT + 1):
        await store.heartbeat(ANN, BUSY)
        assert len(await store.claim(ANN, query(max_losses=0))) == 1
        await wait(store, clock, 11)
    assert await store.claim(ANN, query(max_losses=0)) == []
    [result] = await results(store)
    assert result.status is Status.INFRA_FAILED
    limits = "more than spec.failurePolicy.requestRetries, or losses and expiries: more than 16"
    assert result.ended_by == f"losses of its worker: {limits}; leases taken back: 17"


async def test_an_expiry_in_a_stall_does_not_count_at_a_later_death(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    await dies(store, clock, 0, max_losses=0, first=False)
    await store.heartbeat(boot(0), BUSY)
    await store.heartbeat(boot(1), BUSY)
    assert len(await store.claim(boot(1), query(max_losses=0))) == 1


async def test_an_earlier_boot_that_still_calls_is_no_evidence_against_a_later(store: Store) -> None:
    await store.submit([group("a", 1)])
    for number in range(PAST_BOOTS + 1):
        await store.heartbeat(boot(number), BUSY)
    present = boot(PAST_BOOTS)
    [claim] = await store.claim(present, query())
    for number in range(PAST_BOOTS):
        await store.heartbeat(boot(number), BUSY)
    assert [worker.boot for worker in await store.workers()] == [present.boot]
    assert await store.claim(BOB, query()) == []
    [reply] = await store.complete(present, [finish(claim, 1)])
    assert reply.outcome is WriteOutcome.OK


async def test_a_request_that_runs_elsewhere_may_finish_despite_a_loss(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    await dies(store, clock, 0, max_losses=0, first=False)
    [claim] = await store.claim(BOB, query(max_losses=0))
    await store.heartbeat(boot(1), BUSY)
    await store.complete(BOB, [finish(claim, 1)])
    assert [result.status for result in await results(store)] == [Status.OK]


async def test_a_request_of_a_failed_engine_keeps_its_tokens_and_counts(store: Store) -> None:
    await store.submit([group("a", 1)])
    for number in range(3):
        [claim] = await store.claim(boot(number), query(max_losses=2))
        for _ in range(2):
            await store.give_back(boot(number), [delta(claim, 2)], lost=True)
    assert await store.claim(BOB, query(max_losses=2)) == []
    [result] = await results(store)
    assert (result.status, result.tokens) == (Status.INFRA_FAILED, tokens(0, 6))


async def test_a_worker_that_deregistered_does_not_count_as_dead(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 1)])
    await dies(store, clock, 0, max_losses=0)
    await store.deregister(boot(0))
    await wait(store, clock, 11)
    [claim] = await store.claim(BOB, query(max_losses=0))
    assert (await store.record(claim.request)).state is State.LEASED


async def test_a_worker_holds_one_suspect_at_a_time(store: Store) -> None:
    await store.submit([group("a", 4), group("b", 2)])
    for number in range(2):
        await store.heartbeat(boot(number), BUSY)
        await store.claim(boot(number), query(3))
    await store.heartbeat(boot(2), BUSY)
    claims = await store.claim(boot(2), query())
    assert names(claims) == ["a/0", "a/3", "b/0", "b/1"]
    assert await store.claim(boot(2), query()) == []
    [other] = await store.claim(BOB, query())
    assert names([other]) == ["a/1"]
    await store.complete(boot(2), [finish(claims[0], 1)])
    assert names(await store.claim(boot(2), query())) == ["a/2"]


async def test_a_request_that_was_given_back_is_no_longer_a_suspect(store: Store) -> None:
    await store.submit([group("a", 2)])
    for number in range(2):
        await store.heartbeat(boot(number), BUSY)
        await store.claim(boot(number), query())
    await store.heartbeat(boot(2), BUSY)
    [claim] = await store.claim(boot(2), query())
    await store.give_back(boot(2), [delta(claim, 5)])
    assert names(await store.claim(boot(2), query())) == ["a/1", "a/0"]


async def test_a_request_that_kills_between_give_backs_ends_at_the_limit(store: Store) -> None:
    await store.submit([group("a", 1)])
    number = 0
    while not (await store.progress(0)).closed:
        number += 1
        await store.heartbeat(boot(number), BUSY)
        for claim in await store.claim(boot(number), query(max_losses=2)):
            await store.give_back(boot(number), [delta(claim, 1)])
        await store.claim(boot(number), query(max_losses=2))
    assert number == EXPIRY_LIMIT + 2


async def test_suspects_do_not_hide_other_requests(store: Store) -> None:
    await store.submit([group(f"g{number:02}", 1) for number in range(40)] + [group("h", 8)])
    for number in range(2):
        await store.heartbeat(boot(number), BUSY)
        assert len(await store.claim(boot(number), query(45))) == 45
    await store.heartbeat(boot(2), BUSY)
    assert names(await store.claim(boot(2), query())) == ["g00/0", "h/5", "h/6", "h/7"]
    assert names(await store.claim(BOB, query())) == ["g01/0"]


async def test_a_request_becomes_a_suspect_while_it_waits(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 2)])
    for number in range(2):
        await dies(store, clock, number, first=False)
    await store.heartbeat(boot(2), BUSY)
    assert names(await store.claim(boot(2), query())) == ["a/0"]
    assert names(await store.claim(BOB, query())) == ["a/1"]
