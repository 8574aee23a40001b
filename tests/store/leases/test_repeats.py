"""Any call may be repeated after a lost answer: every verb twice, and a whole batch without first answers."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from openseer_core.ids import PARKED_BATCH, GroupId, WorkerId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.messages import Claim
from openseer_core.queue.siblings import SiblingQuery
from openseer_core.queue.states import Event, Status
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_store.port import Store
from tests.contract.forms.reading import read_all
from tests.store.builders import ANN, BOB, VERSION, delta, extend, finish, group, query, request, results, tokens

A, B, T = (GroupId(0, name) for name in "abt")
BUSY = Heartbeat(WorkerState.BUSY, busy_seconds=2.0)
BATCHES = (PARKED_BATCH, 0, 1)

Call = Callable[[Store, list[Claim]], Awaitable[object]]

WRITING: dict[str, Call] = {
    "claim": lambda store, claims: store.claim(ANN, query(3, number=7)),
    "extend": lambda store, claims: extend(store, ANN, [delta(claims[0], 3)]),
    "complete": lambda store, claims: store.complete(ANN, [finish(claims[0], 3)]),
    "give_back": lambda store, claims: store.give_back(ANN, [delta(claim, 3) for claim in claims]),
    "heartbeat": lambda store, claims: store.heartbeat(
        WorkerId("ann", "2"), Heartbeat(WorkerState.BUSY, busy_seconds=2)
    ),
    "deregister": lambda store, claims: store.deregister(ANN),
    "acquire_driver": lambda store, claims: store.acquire_driver("boot"),
    "submit": lambda store, claims: store.submit([group("new", 3)]),
    "seal": lambda store, claims: store.seal(0),
    "acknowledge": lambda store, claims: store.acknowledge(0, 1),
    "request_drain": lambda store, claims: store.request_drain("ann"),
    "reap": lambda store, claims: store.reap(3, everything=True),
    "end": lambda store, claims: store.end(0),
    "purge": lambda store, claims: store.purge(),
    "open_batch": lambda store, claims: store.open_batch(OpenBatch(VERSION, "{}", "key")),
    "grow": lambda store, claims: store.grow(group("b", 4), 2),
    "end_groups": lambda store, claims: store.end_groups([A], Event.CANCEL),
    "carry": lambda store, claims: store.carry([A], PARKED_BATCH, VERSION),
    "change_version": lambda store, claims: store.change_version(0, "v2"),
    "go_on": lambda store, claims: store.go_on(request("t/0"), 0, tokens(2, 2)),
    "judge": lambda store, claims: store.judge(0, {"a": True, "t": False}),
    "forget": lambda store, claims: store.forget(1),
    "wait_for_work": lambda store, claims: store.wait_for_work(VERSION, ("",), 0.001),
    "swap_fleet_spec": lambda store, claims: swap(store),
}
READING: dict[str, Call] = {
    "now": lambda store, claims: store.now(),
    "base": lambda store, claims: store.base(),
    "fleet_spec": lambda store, claims: store.fleet_spec(),
    "siblings": lambda store, claims: store.siblings([SiblingQuery(A, ((0, 0), (1, 0)))], 1000),
    "longest_earlier": lambda store, claims: store.longest_earlier(["digest"]),
    "progress": lambda store, claims: store.progress(0),
    "results": lambda store, claims: store.results(0, 0, 10),
    "workers": lambda store, claims: store.workers(),
    "group_view": lambda store, claims: store.group_view(A),
    "groups": lambda store, claims: store.groups(0, 0, 10),
    "record": lambda store, claims: store.record(request("a/0")),
    "lengths": lambda store, claims: store.lengths([request("a/0"), request("t/0")]),
    "journal": lambda store, claims: store.journal(0, 0, 100),
    "batches": lambda store, claims: store.batches(),
    "batch": lambda store, claims: store.batch(1),
    "batch_of_key": lambda store, claims: store.batch_of_key("first"),
    "group_names": lambda store, claims: store.group_names(0, 0, 10),
    "spec": lambda store, claims: store.spec(A),
    "verdict": lambda store, claims: store.verdict(A),
    "load": lambda store, claims: store.load(),
    "memory": lambda store, claims: store.memory(),
}
COUNTING = {"wait_for_work", "submit", "reap", "end", "end_groups", "carry", "open_batch"}
"""Verbs that return how many items were new, or whether any was; a repeat has none."""
OF_THE_SERVER = {"memory"}
"""Verbs whose answer is the state of the server's memory, which changes at any time."""


async def swap(store: Store) -> object:
    """Writes the next fleet spec."""
    return await store.swap_fleet_spec(SPECS[id(store)])


SPECS: dict[int, Any] = {}


async def prepared(store: Store) -> list[Claim]:
    """Prepares groups with requests that wait, run, or have ended a turn; returns the two leases of ANN."""
    await store.open_batch(OpenBatch(VERSION, "{}", "first"))
    await store.submit([group("t", lanes=("t",)), group("a", 3), group("b", 2), group("one", 1, batch=1)])
    await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE, idle_seconds=1.5))
    claims = await store.claim(ANN, query(3, lanes=("t", "")))
    [turn] = [claim for claim in claims if claim.request.group == T]
    await store.complete(ANN, [finish(turn, 2)])
    fleet_spec = await store.fleet_spec()
    SPECS[id(store)] = fleet_spec.model_copy(update={"revision": fleet_spec.revision + 1, "version": VERSION})
    return [claim for claim in claims if claim is not turn]


async def seen(store: Store) -> Any:
    """All readable state, and the fleet load for each worker."""
    loads = [(await extend(store, worker, [])).fleet_load for worker in (ANN, BOB)]
    return await read_all(store, BATCHES, []), loads


def test_every_verb_of_the_store_is_tested() -> None:
    verbs = {name for name in dir(Store) if not name.startswith("_") and callable(getattr(Store, name))}
    assert verbs - {"close"} == WRITING.keys() | READING.keys()


@pytest.mark.parametrize("verb", WRITING | READING)
async def test_a_repeated_verb_changes_nothing_and_answers_the_same(store: Store, verb: str) -> None:
    claims = await prepared(store)
    call = (WRITING | READING)[verb]
    first = await call(store, claims)
    state = await seen(store)
    again = await call(store, claims)
    assert await seen(store) == state
    assert verb in COUNTING | OF_THE_SERVER or again == first


class LossyStore:
    """Drops the first answer to every call and repeats the call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._store, verb)

        async def twice(*args: Any, **more: Any) -> Any:
            await call(*args, **more)
            return await call(*args, **more)

        return twice


async def test_a_batch_whose_every_answer_is_lost_once_ends_once(store: Store) -> None:
    lossy = cast(Store, LossyStore(store))
    await lossy.submit([group("a", 20), group("b", 20)])
    await lossy.seal(0)
    number, slots = 0, 8
    while not (await lossy.progress(0)).complete:
        number += 1
        claims = await lossy.claim(ANN, query(slots, number=number))
        assert (await extend(lossy, ANN, [delta(claim, 2) for claim in claims])).fleet_load.inflight == len(claims)
        half = len(claims) // 2
        await lossy.complete(ANN, [finish(claim, 3) for claim in claims[half:]])
        await lossy.give_back(ANN, [delta(claim, 4) for claim in claims[:half]])
    found = await results(lossy)
    assert {result.status for result in found} == {Status.OK}
    assert len({result.request for result in found}) == len(found) == 40
