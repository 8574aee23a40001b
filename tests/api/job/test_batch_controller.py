"""The batch controller under delays and failures of the store, of a batch and of itself."""

import pytest

from openseer_api import batch_controller
from openseer_api.batch_controller import reconcile
from openseer_api.compat.control.pausing import set_paused
from openseer_api.job.context import JobContext
from openseer_api.routes.weights import publish_weights
from openseer_core.ids import PARKED_BATCH, GroupId, WorkerId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.states import Event
from openseer_core.weights.fleet_spec import WeightsTransaction
from openseer_core.weights.publish import Publish, Source
from openseer_core.weights.transaction import cancel
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState
from openseer_store.memory import MemoryStore
from tests.api.served import serving_job
from tests.store.builders import group

ANN, BOB = WorkerId("ann", "1"), WorkerId("bob", "1")
PUBLISH = Publish(version="v1", source=Source(path="/v1"), mode="keep", retries=0)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


def context(store: MemoryStore) -> JobContext:
    """The context of a replica that has just started."""
    return JobContext(serving_job(), store)


async def transaction(store: MemoryStore) -> WeightsTransaction:
    found = (await store.fleet_spec()).transaction
    assert found is not None
    return found


async def say(store: MemoryStore, worker: WorkerId, **report: object) -> None:
    """Sends the heartbeat of an idle worker."""
    await store.heartbeat(worker, Heartbeat(WorkerState.IDLE, weights=WeightsReport.model_validate(report)))


async def test_an_outage_neither_advances_a_transaction_nor_drops_workers(store: MemoryStore, clock: Clock) -> None:
    for worker in (ANN, BOB):
        await say(store, worker, version="initial")
    await publish_weights(context(store), PUBLISH)
    clock.seconds += 60.0
    await reconcile(context(store))
    told = await transaction(store)
    assert (told.phase, told.participants, told.replaced) == ("prefetch", ("ann", "bob"), ())


async def test_a_publish_right_after_an_outage_waits_for_the_workers(store: MemoryStore, clock: Clock) -> None:
    await say(store, ANN, version="initial")
    clock.seconds += 60.0
    await publish_weights(context(store), PUBLISH)
    assert (await transaction(store)).participants == ("ann",)


async def test_the_first_loading_worker_fixes_the_digest_of_a_version(store: MemoryStore) -> None:
    await publish_weights(context(store), PUBLISH)
    while (await transaction(store)).active:
        await reconcile(context(store))
    await say(store, ANN, version="v1", publisher=(await transaction(store)).id, loaded="1" * 64)
    await reconcile(context(store))
    assert (await store.fleet_spec()).source == Source(path="/v1", digest="1" * 64)


class Troubled(MemoryStore):
    """A store that raises an error for one batch."""

    trouble = 0

    async def change_version(
        self, batch: int, version: str, stale: tuple[str, ...] = (), revision: int | None = None
    ) -> None:
        if batch == self.trouble:
            raise KeyError(f"batch {batch}")
        await super().change_version(batch, version, stale, revision)


async def test_a_batch_that_raises_stops_neither_the_others_nor_the_transaction(clock: Clock) -> None:
    store = Troubled(clock)
    job = context(store)
    for _ in range(2):
        await store.open_batch(OpenBatch("initial", "{}"))
    store.trouble = 1
    await publish_weights(job, PUBLISH)
    for _ in range(3):
        await reconcile(job)
    assert (await transaction(store)).phase == "done"
    assert [record.version for record in await store.batches()] == ["initial", "v1"]
    store.trouble = 0
    await reconcile(job)
    assert [record.version for record in await store.batches()] == ["v1", "v1"]


class Paused(MemoryStore):
    """A store that cancels the publish just before a batch is aborted, as if the controller had been paused."""

    async def end(self, batch: int, event: Event = Event.ABORT, revision: int | None = None) -> int:
        await self.swap_fleet_spec(cancel(await self.fleet_spec(), 0.0))
        return await super().end(batch, event, revision)


async def test_a_controller_resumed_after_a_rollback_aborts_no_live_batch(clock: Clock) -> None:
    store = Paused(clock)
    job = context(store)
    record, _ = await store.open_batch(OpenBatch("initial", "{}"))
    await store.submit([group("a", 2, batch=record.number, version="initial")])
    await publish_weights(job, PUBLISH.model_copy(update={"mode": "abort"}))
    await reconcile(job)
    assert (await transaction(store)).phase == "failed"
    assert (await store.progress(record.number)).aborted == 0


async def test_an_interrupted_carry_is_finished_by_the_controller(store: MemoryStore) -> None:
    one, _ = await store.open_batch(OpenBatch("initial", "{}"))
    await store.submit([group(name, 1, batch=one.number) for name in "ab"])
    await store.carry([GroupId(one.number, name) for name in "ab"], PARKED_BATCH, "initial")
    two, _ = await store.open_batch(OpenBatch("initial", '{"carry": true}', carry=True))  # and its caller died
    await reconcile(context(store))
    assert len(await store.group_names(two.number, 0, 9)) == 2
    await store.submit([group("c", 1, batch=one.number)])
    await store.carry([GroupId(one.number, "c")], PARKED_BATCH, "initial")
    await reconcile(context(store))
    assert len(await store.group_names(two.number, 0, 9)) == 2  # groups that are parked later belong to a later batch


async def test_a_pause_ends_after_its_time_limit(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_controller, "MOST_PAUSE_SECONDS", 3.0)
    job = context(store)
    await set_paused(job, True)
    for held in (True, True, True, False):
        clock.seconds += 1.0
        await say(store, ANN)
        await reconcile(job)
        assert (await store.fleet_spec()).held is held
    await set_paused(job, True)
    await reconcile(job)
    assert (await store.fleet_spec()).held
