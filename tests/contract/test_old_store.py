"""A job continues on the store of an earlier commit: all is read, claimed, extended, completed and acknowledged."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openseer_core.errors import DriverFencedError
from openseer_core.ids import PARKED_BATCH, GroupId, RequestId
from openseer_core.numbers import base_of
from openseer_core.queue.batch import GroupEnd, OpenBatch
from openseer_core.queue.messages import Claim, Delta, Finish, Result, WriteOutcome
from openseer_core.queue.siblings import SiblingQuery
from openseer_core.queue.states import FinishReason, State, Status
from openseer_store.keys import prefix
from openseer_store.redis_store import RedisStore
from tests.contract.forms import old_store
from tests.contract.forms.dump import begin, dump, restore
from tests.contract.forms.old_store import (
    ANN,
    BOB,
    CY,
    DIGEST,
    DRIVERS,
    FIRST,
    GONE,
    JOB,
    NAMESPACE,
    SECOND,
    VERSION,
    ask,
    tokens,
)
from tests.contract.forms.reading import read_all
from tests.contract.forms.recorded import compare, load

pytestmark = pytest.mark.redis

BATCHES = (PARKED_BATCH, DRIVERS, FIRST, SECOND, GONE)
HELD = RequestId(GroupId(FIRST, "mixed"), 1)
EPOCH, FENCE = 1, 2**32 + 1
"""The epoch of the earlier commit's store, and the fence of its first lease."""
_namespaces = itertools.count()


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses; the samples have keys without it."""
    return f"{NAMESPACE}-{next(_namespaces)}"


@pytest.fixture
def clock() -> old_store.Clock:
    return old_store.Clock()


@pytest.fixture
async def empty(server_url: str, namespace: str, clock: old_store.Clock) -> AsyncIterator[RedisStore]:
    """An empty store."""
    store = RedisStore(server_url, JOB, namespace, clock=clock, retry_seconds=60.0)
    yield store
    await store.close()


@pytest.fixture
def store(empty: RedisStore, server_url: str, namespace: str, clock: old_store.Clock) -> RedisStore:
    """The store of the earlier commit, restored into another server, 10 s later."""
    restore(server_url, prefix(namespace, JOB), load("old_store"))
    clock.seconds += 10.0
    return empty


async def extend(store: RedisStore, deltas: list[Delta]) -> list[WriteOutcome]:
    reply = await store.extend(ANN, deltas, [], lease_seconds=10.0, version=VERSION, lanes=("",))
    return [item.outcome for item in reply.replies]


def more(request: RequestId, fence: int, start: int, count: int) -> Delta:
    return Delta(request, fence, start, tokens(start, count), bytes(4 * count))


def rest(claim: Claim, length: int) -> Finish:
    """The end of a lease at `length` tokens."""
    news = more(claim.request, claim.fence, claim.generated, length - claim.generated)
    return Finish(news, Status.OK, FinishReason.STOP, "</s>")


def names(claims: list[Claim]) -> list[str]:
    return [str(claim.request) for claim in claims]


async def record(store: RedisStore, name: str) -> Any:
    return await store.record(RequestId.parse(name))


async def test_a_new_store_equals_its_sample(
    empty: RedisStore, server_url: str, namespace: str, clock: old_store.Clock
) -> None:
    begin(server_url, prefix(namespace, JOB))
    await old_store.make_old_store(empty, clock)
    compare("store", dump(server_url, prefix(namespace, JOB)))


async def test_everything_in_an_old_store_is_read(store: RedisStore) -> None:
    compare("old_store_read", await read_all(store, BATCHES, [DIGEST, "unknown"]))


async def test_results_of_an_old_store_continue_after_a_cursor(store: RedisStore) -> None:
    whole = await store.results(FIRST, 0, 100)
    assert [entry.cursor for entry in whole] == list(range(1, len(whole) + 1))
    assert await store.results(FIRST, 4, 2) == whole[4:6]
    assert await store.results(FIRST, whole[-1].cursor, 10) == []


async def test_keys_of_old_batches_return_the_same_batches(store: RedisStore) -> None:
    again, new = await store.open_batch(OpenBatch("v9", "{}", old_store.KEY))
    assert (again.number, again.version, new) == (FIRST, VERSION, False)
    assert not (await store.open_batch(OpenBatch("v9", "{}", "step-0")))[1]
    fresh, new = await store.open_batch(OpenBatch("v9", "{}", "step-2"))
    assert (fresh.number > base_of(EPOCH), new) == (True, True)


async def test_a_worker_continues_its_lease_in_an_old_store(store: RedisStore) -> None:
    assert await extend(store, [more(HELD, FENCE, 5, 3)]) == [WriteOutcome.OK]
    assert await extend(store, [more(HELD, FENCE - 1, 8, 1)]) == [WriteOutcome.LOST]
    assert await extend(store, [more(HELD, FENCE, 9, 1)]) == [WriteOutcome.GAP]
    end = Finish(more(HELD, FENCE, 8, 2), Status.OK, FinishReason.LENGTH)
    [reply] = await store.complete(ANN, [end])
    assert (reply.outcome, reply.have) == (WriteOutcome.OK, 10)
    assert reply.view is not None
    assert (reply.view.finished, reply.view.longest_finished, reply.view.longest_running) == (2, 10, 5)
    last = (await store.results(FIRST, 0, 100))[-1]
    assert isinstance(last, Result)
    assert (last.request, last.tokens, last.reason) == (HELD, tokens(0, 10), FinishReason.LENGTH)


async def test_a_lease_in_an_old_store_expires_and_its_tokens_stay(store: RedisStore, clock: old_store.Clock) -> None:
    clock.seconds += old_store.LEASE_SECONDS
    assert await store.reap(3) == 1
    [claim] = [claim for claim in await store.claim(BOB, ask(100)) if claim.request == HELD]
    assert claim.tokens == tokens(0, 5)
    assert claim.fence > FENCE
    assert await extend(store, [more(HELD, FENCE, 5, 1)]) == [WriteOutcome.LOST]


async def test_waiting_requests_of_an_old_store_are_claimed_in_order(store: RedisStore) -> None:
    claims = await store.claim(BOB, ask(100))
    assert names(claims) == [
        f"{FIRST}/mixed/3",
        f"{FIRST}/mixed/2",
        f"{SECOND}/grown/0",
        f"{FIRST}/turned/0",
        f"{DRIVERS}/p1/0",
    ]
    found = {str(claim.request): claim for claim in claims}
    assert found[f"{FIRST}/mixed/2"].tokens == tokens(0, 3)
    turned = found[f"{FIRST}/turned/0"]
    assert (turned.tokens, turned.fence > FENCE) == (tokens(0, 6), True)
    assert (found[f"{DRIVERS}/p1/0"].true_length, turned.max_tokens, turned.view.revision) == (12, 64, 1)
    bound = await store.claim(CY, ask(100, lanes=("cy", "")))
    assert names(bound) == [f"{SECOND}/bound/1", f"{SECOND}/bound/0"]
    assert [(claim.bias, claim.seed, claim.true_length) for claim in bound] == [(-9.0, None, 9), (-3.0, 7, 3)]
    assert bound[0].sampling == '{"temperature":0.5,"maxTokens":64}'


async def test_an_old_batch_is_completed_acknowledged_and_forgotten(store: RedisStore) -> None:
    read = (await store.results(FIRST, 0, 100))[-1].cursor
    claims = await store.claim(BOB, ask(100))
    await store.complete(BOB, [rest(claim, 12) for claim in claims])
    await store.complete(ANN, [Finish(more(HELD, FENCE, 5, 2), Status.OK, FinishReason.STOP)])
    await store.seal(FIRST)
    progress = await store.progress(FIRST)
    assert progress.complete
    assert (progress.ok, progress.aborted, progress.infra_failed, progress.carried_over) == (9, 2, 1, 2)
    assert (progress.groups_ended, progress.groups_whole, progress.groups_carried) == (6, 3, 1)
    entries = await store.results(FIRST, read, 100)
    ends = {entry.group.name: entry for entry in entries if isinstance(entry, GroupEnd)}
    assert {name: entry.whole for name, entry in ends.items()} == {"mixed": True, "turned": True}
    turns = [entry.turn for entry in entries if isinstance(entry, Result) and entry.request.group.name == "turned"]
    assert turns == [1]
    await store.acknowledge(FIRST, entries[-1].cursor)
    await store.forget(FIRST)
    assert [batch.number for batch in await store.batches()] == [SECOND]
    gone = await store.batch(FIRST)
    assert gone is not None
    assert (gone.forgotten, gone.progress.ok) == (True, 9)


async def test_parked_groups_of_an_old_store_continue_in_a_new_batch(store: RedisStore) -> None:
    fresh, _ = await store.open_batch(OpenBatch("v7", "{}"))
    parked = [GroupId(PARKED_BATCH, name) for name in await store.group_names(PARKED_BATCH, 0, 10)]
    assert await store.carry(parked, fresh.number, "v7") == 1
    claims = await store.claim(BOB, ask(9, version="v7"))
    assert {str(claim.request): claim.tokens for claim in claims} == {
        f"{fresh.number}/carried/1": tokens(0, 7),
        f"{fresh.number}/carried/2": b"",
    }
    await store.complete(BOB, [rest(claim, 9) for claim in claims])
    *results, end = await store.results(fresh.number, 0, 10)
    assert [entry.tokens for entry in results if isinstance(entry, Result)] == [tokens(0, n) for n in (5, 9, 9)]
    assert isinstance(end, GroupEnd)
    assert end.whole


async def test_a_new_driver_fences_off_the_driver_of_an_old_store(store: RedisStore) -> None:
    assert await store.acquire_driver("driver-boot") == FENCE
    new = await store.acquire_driver("another")
    assert new > FENCE
    with pytest.raises(DriverFencedError):
        await store.acknowledge(DRIVERS, 2, FENCE)
    await store.acknowledge(DRIVERS, 2, new)


async def test_the_fleet_spec_of_an_old_store_can_be_changed(store: RedisStore) -> None:
    fleet_spec = await store.fleet_spec()
    assert fleet_spec.active_transaction is not None
    done = fleet_spec.active_transaction.model_copy(update={"phase": "done"})
    successor = fleet_spec.changed(version="v7", transaction=done)
    assert await store.swap_fleet_spec(successor)
    assert (await store.fleet_spec()).version == "v7"
    assert (await store.fleet_spec()).revision > base_of(EPOCH)


async def test_a_drain_requested_in_an_old_store_reaches_its_worker(store: RedisStore) -> None:
    [status] = [status for status in await store.workers() if status.name == CY.name]
    reply = await store.heartbeat(CY, status.heartbeat)
    assert (reply.drain, reply.revision) == (True, 2)


async def test_responses_of_an_old_store_are_available_for_drafts(store: RedisStore) -> None:
    mixed, whole = GroupId(FIRST, "mixed"), GroupId(FIRST, "whole")
    asks = [SiblingQuery(mixed, ((0, 4), (1, 0), (2, 0))), SiblingQuery(whole, (), True)]
    news, earlier = await store.siblings(asks, 10_000)
    assert news.news == ((0, 4, tokens(4, 4)), (1, 0, tokens(0, 5)), (2, 0, tokens(0, 3)))
    assert earlier.earlier == (tokens(0, 9), tokens(0, 6))
    assert await store.longest_earlier([DIGEST]) == [9]


async def test_running_requests_of_an_old_store_can_be_ended(store: RedisStore) -> None:
    assert await store.end(FIRST) == 4
    assert (await record(store, f"{FIRST}/mixed/1")).state is State.ABORTED
    assert await extend(store, [more(HELD, FENCE, 5, 1)]) == [WriteOutcome.LOST]
    await store.change_version(SECOND, "v7")
    assert len(await store.claim(CY, ask(9, lanes=("cy", ""), version="v7"))) == 3
