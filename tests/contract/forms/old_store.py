"""The store of a job in the middle of its work, written by the store's own calls on a clock that the test sets."""

from dataclasses import dataclass, replace

from openseer_core.ids import PARKED_BATCH, GroupId, RequestId, WorkerId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import GroupSpec, Priority
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, Finish, Rescore
from openseer_core.queue.siblings import prompt_digest
from openseer_core.queue.states import Event, FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.redis_store import RedisStore
from tests.contract.forms.filled import BATCH_SPEC, ONGOING, REPORT

NAMESPACE, JOB = "team-a", "old-job"
VERSION = "v6"
ANN, BOB, CY = WorkerId("ann", "a1"), WorkerId("bob", "b1"), WorkerId("cy", "c1")
DRIVERS, FIRST, SECOND, GONE = 0, 1, 2, 3
"""Batches: the driver's, two open ones, and one that was acknowledged."""
KEY = "step-1"
LEASE_SECONDS = 60.0
PROMPT = pack_tokens([1, 5, 9, 70_000])
DIGEST = prompt_digest(PROMPT)
STARTED_AT = 1_795_000_000.0


@dataclass
class Clock:
    """A clock that advances only by `step` or by assignment."""

    seconds: float = STARTED_AT

    def __call__(self) -> float:
        return self.seconds

    def step(self) -> None:
        """Advances the clock by 0.25 s."""
        self.seconds += 0.25


def group(batch: int, name: str, size: int, base: float, probe: float | None = None) -> GroupSpec:
    """A group that is claimed in the order of `base`."""
    return GroupSpec(
        id=GroupId(batch, name),
        version=VERSION,
        ordinal=int(base),
        prompt=PROMPT,
        max_tokens=64,
        biases=(0.0,) * size,
        lanes=("",) * size,
        priority=Priority(base, 0.5, probe),
        enqueued_at=STARTED_AT,
        sampling='{"temperature":0.5,"maxTokens":64}',
        metadata='{"metadata": {"answer": "\\u00e9"}, "template_hash": null}',
    )


def ask(slots: int, lanes: tuple[str, ...] = ("",), version: str = VERSION) -> ClaimQuery:
    """The query of a worker with `slots` free slots."""
    return ClaimQuery(
        version=version,
        lanes=lanes,
        slots=slots,
        blocks=1000,
        layout=whole(16),
        quantum=16,
        context_tokens=1000,
        margin=2,
        slack=100,
        lease_seconds=LEASE_SECONDS,
        max_losses=3,
    )


def tokens(start: int, count: int) -> bytes:
    """`count` packed tokens; the token at position p is 100 + p."""
    return pack_tokens(range(100 + start, 100 + start + count))


def delta(claim: Claim, count: int, start: int | None = None) -> Delta:
    """`count` more tokens of a lease, from `start` or from the length at its claim."""
    at = claim.generated if start is None else start
    logprobs = pack_logprobs(-0.5 * place for place in range(at, at + count))
    return Delta(claim.request, claim.fence, at, tokens(at, count), logprobs)


def finish(claim: Claim, count: int, start: int | None = None, rescore: Rescore | None = None) -> Finish:
    """The end of a lease after `count` more tokens."""
    return Finish(delta(claim, count, start), Status.OK, FinishReason.STOP, "</s>", rescore)


def failed(claim: Claim) -> Finish:
    """The end of a lease whose request the engine refused."""
    return Finish(delta(claim, 0), Status.INFRA_FAILED, FinishReason.INFRA_FAILED)


async def make_old_store(store: RedisStore, clock: Clock) -> None:
    """Fills an empty store."""
    for worker in (ANN, BOB, CY):
        await store.heartbeat(worker, Heartbeat(WorkerState.IDLE, idle_seconds=1.5))
    await _publish(store)
    await _drivers_batch(store, clock)
    await _first_batch(store, clock)
    await _second_batch(store, clock)
    await _gone_batch(store, clock)
    await _running(store, clock)
    await _heartbeats(store, clock)


async def _publish(store: RedisStore) -> None:
    before = FleetSpec(revision=1, version=VERSION, versions=("initial", VERSION), publisher=3, transactions=3)
    assert await store.swap_fleet_spec(before)
    active = {"phase": "quiesce", "finished_at": None, "entered_at": STARTED_AT}
    news = {"revision": 2, "transaction": ONGOING.model_copy(update=active), "transactions": 4}
    assert await store.swap_fleet_spec(before.model_copy(update=news))


async def _drivers_batch(store: RedisStore, clock: Clock) -> None:
    """A group whose result is acknowledged, and a group that waits last of all."""
    driver = await store.acquire_driver("driver-boot")
    await store.submit([group(DRIVERS, "p0", 1, 0)])
    [claim] = await store.claim(ANN, ask(1))
    clock.step()
    await store.complete(ANN, [finish(claim, 3)])
    await store.acknowledge(DRIVERS, 1, driver)
    await store.submit([replace(group(DRIVERS, "p1", 1, 900), lengths=(12,))])
    await store.seal(DRIVERS)


async def _first_batch(store: RedisStore, clock: Clock) -> None:
    """A trainer's batch with a key and a target; its groups are in every state but leased."""
    record, _ = await store.open_batch(OpenBatch(VERSION, BATCH_SPEC.model_dump_json(exclude_defaults=True), KEY))
    assert record.number == FIRST
    kept = replace(group(FIRST, "whole", 2, 1), history=DIGEST, history_size=3, longest_earlier=0)
    await store.submit([kept])
    first, second = await store.claim(ANN, ask(2))
    clock.step()
    await store.extend(ANN, [delta(first, 4)], [], lease_seconds=LEASE_SECONDS, version=VERSION, lanes=("",))
    [reply] = await store.complete(ANN, [finish(first, 2, 4, Rescore(first.view.with_finish(6), Priority(-6.0, 0.5)))])
    clock.step()
    await store.complete(ANN, [finish(second, 9)])
    assert reply.view is not None
    await store.submit([group(FIRST, "refused", 2, 2), group(FIRST, "cancelled", 2, 3)])
    refused, other, running = await store.claim(BOB, ask(3))
    await store.complete(BOB, [failed(refused), finish(other, 1)])
    await store.give_back(BOB, [delta(running, 3)])
    clock.step()
    await store.end_groups([GroupId(FIRST, "cancelled")], Event.CANCEL)
    await store.submit([group(FIRST, "turned", 1, 4)])
    [turn] = await store.claim(ANN, ask(1))
    await store.complete(ANN, [finish(turn, 4)])
    clock.step()
    assert await store.go_on(RequestId(GroupId(FIRST, "turned"), 0), 0, tokens(4, 2))
    await _carried(store, clock)
    await store.judge(FIRST, {"whole": True, "refused": False})


async def _carried(store: RedisStore, clock: Clock) -> None:
    """Parks one group of the first batch: a whole response, a part of one, and an unclaimed request."""
    await store.submit([group(FIRST, "carried", 3, -5)])
    done, part = await store.claim(BOB, ask(2))
    await store.complete(BOB, [finish(done, 5)])
    await store.extend(BOB, [delta(part, 7)], [], lease_seconds=LEASE_SECONDS, version=VERSION, lanes=("",))
    clock.step()
    assert await store.carry([GroupId(FIRST, "carried")], PARKED_BATCH, VERSION) == 1


async def _second_batch(store: RedisStore, clock: Clock) -> None:
    """A batch that a compatible route fills: lanes, seeds, forced lengths, a group that has grown."""
    record, _ = await store.open_batch(OpenBatch(VERSION, '{"metadata":{"live":"boot"}}'))
    assert record.number == SECOND
    bound = replace(
        group(SECOND, "bound", 2, 5), lanes=("cy", "cy"), biases=(-3.0, -9.0), seeds=(7, None), lengths=(3, 9), tier=-2
    )
    await store.submit([bound, group(SECOND, "grown", 1, 6)])
    await store.grow(group(SECOND, "grown", 2, 6), 1)
    clock.step()
    await store.end_groups([GroupId(SECOND, "grown")], Event.ABORT, 1)


async def _gone_batch(store: RedisStore, clock: Clock) -> None:
    """A batch whose results are all acknowledged; its counts and key remain."""
    record, _ = await store.open_batch(OpenBatch(VERSION, "{}", "step-0"))
    assert record.number == GONE
    await store.submit([group(GONE, "g", 1, -7)])
    await store.seal(GONE)
    [claim] = await store.claim(CY, ask(1))
    clock.step()
    await store.complete(CY, [finish(claim, 2)])
    await store.acknowledge(GONE, 2)
    await store.forget(GONE)


async def _running(store: RedisStore, clock: Clock) -> None:
    """A group of four requests: done, leased with tokens, given back with tokens, never claimed."""
    await store.submit([group(FIRST, "mixed", 4, -9, probe=-1e15)])
    done, held, back = await store.claim(ANN, ask(3))
    clock.step()
    await store.complete(ANN, [finish(done, 8)])
    await store.give_back(ANN, [delta(back, 3)])
    view = held.view.with_finish(8).with_running(5)
    news = [Rescore(view, Priority(-8.0, 0.5))]
    await store.extend(ANN, [delta(held, 5)], news, lease_seconds=LEASE_SECONDS, version=VERSION, lanes=("",))
    await store.seal(SECOND)


async def _heartbeats(store: RedisStore, clock: Clock) -> None:
    """The heartbeats of the workers; one of them is asked to drain."""
    clock.step()
    metrics = WorkerMetrics({"slots": 8, "kv_used": 0.25, "device": "cpu", "drafts": "off: none"})
    report = REPORT.model_copy(update={"error": "", "mismatch": False, "asleep": False})
    await store.heartbeat(ANN, Heartbeat(WorkerState.BUSY, metrics, report, 1.5, 2.25))
    await store.heartbeat(BOB, Heartbeat(WorkerState.IDLE, WorkerMetrics({"slots": 4}), None, 2.5, 0.5))
    await store.request_drain(CY.name)
