"""The Redis store and the reference queue, driven side by side with the same calls and the same times."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.store import builders
from tests.store.conftest import Clock

from openseer_core.chunk import Claim, Delta, Pulse, RequestRecord, Rescore, WorkerInfo
from openseer_core.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.ids import RequestId, WorkerId
from openseer_core.life import State, Status
from openseer_core.tokens import count_items
from openseer_store.memory import MemoryStore
from openseer_store.port import FIRST_CURSOR, Store
from openseer_store.redis_store import RedisStore

T = TypeVar("T")

WORKERS = [WorkerId("ann", "1"), WorkerId("ann", "2"), WorkerId("bob", "1")]
LANES = [(SHARED_LANE,), ("0", SHARED_LANE), ("1",)]
BATCHES = [0, 1]
MOST_GROUPS = 8

scores = st.integers(-40, 40).map(lambda number: number / 4)
priorities = st.builds(Priority, scores, st.sampled_from([0.0, 1.0, -0.5]), st.none() | scores)
workers = st.sampled_from(WORKERS)
lanes = st.sampled_from([SHARED_LANE, SHARED_LANE, "0", "1"])
requests = st.tuples(scores | st.just(0.0), lanes)
counts = st.integers(0, 6)
shifts = st.sampled_from([0, 0, 0, -2, -1, 1])
picks = st.lists(st.integers(0, 1000), max_size=4)
_jobs = itertools.count()


class BothStores(RuleBasedStateMachine):
    """Every call goes to both; every answer, and all that can be seen afterwards, must be the same."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.memory = MemoryStore(self.clock)
        self.redis = RedisStore(self.url, f"both-{next(_jobs)}", clock=self.clock, retry_seconds=5.0)
        self.groups: list[GroupSpec] = []
        self.claims: list[Claim] = []
        self.fences: dict[RequestId, int] = {}

    def teardown(self) -> None:
        for batch in BATCHES:
            self.both(lambda store, batch=batch: store.abort(batch))
        self.all_that_is_seen_is_the_same()
        results = self.both(lambda store: store.results(FIRST_CURSOR, 1000))
        expected = [RequestId(spec.id, index) for spec in self.groups for index in range(spec.size)]
        assert sorted(result.request for result in results) == sorted(expected)
        self.runner.run(self.redis.close())
        self.runner.close()

    def both(self, call: Callable[[Store], Awaitable[T]]) -> T:
        async def ask() -> tuple[T, T]:
            return await call(self.memory), await call(self.redis)

        expected, found = self.runner.run(ask())
        assert found == expected
        return expected

    def chosen(self, numbers: list[int]) -> list[Claim]:
        """Claims that were once given, also those that are long lost; the latest come first."""
        recent = self.claims[::-1]
        return [recent[number % min(len(recent), 12)] for number in numbers] if recent else []

    def delta(self, claim: Claim, count: int, shift: int) -> Delta:
        record = self.runner.run(self.memory.record(claim.request))
        return builders.delta(claim, count, max(0, count_items(record.tokens) + shift))

    def rescore(self, claim: Claim, priority: Priority, length: int, late: bool) -> Rescore:
        view = self.runner.run(self.memory.group_view(claim.request.group))
        return Rescore((claim.view if late else view).with_running(length), priority)

    # ---- calls

    @precondition(lambda self: len(self.groups) < MOST_GROUPS)
    @rule(rows=st.lists(requests, min_size=1, max_size=5), priority=priorities, prompt=st.integers(0, 64))
    def submit(self, rows: list[tuple[float, str]], priority: Priority, prompt: int) -> None:
        number = len(self.groups)
        ranks, bound = [rank for rank, _ in rows], [lane for _, lane in rows]
        spec = builders.group(
            f"g/{number % 3}-{number}", 0, priority, batch=number % 2, ranks=ranks, lanes=bound, prompt_tokens=prompt
        )
        self.groups.append(spec)
        self.both(lambda store: store.submit([spec, self.groups[0]]))

    @rule(worker=workers, slots=counts, blocks=st.integers(0, 20), own=st.sampled_from(LANES), slack=st.integers(0, 3))
    def claim(self, worker: WorkerId, slots: int, blocks: int, own: tuple[str, ...], slack: int) -> None:
        room = builders.ask(slots, blocks=blocks, lanes=own, slack=slack, lease_seconds=5.0, max_losses=1)
        for claim in self.both(lambda store: store.claim(worker, room)):
            assert claim.fence > self.fences.get(claim.request, 0)
            self.fences[claim.request] = claim.fence
            self.claims.append(claim)

    @rule(
        worker=workers, numbers=picks, count=counts, shift=shifts, news=st.booleans(), priority=priorities,
        length=st.integers(0, 90), late=st.booleans(), own=st.sampled_from(LANES),
    )  # fmt: skip
    def extend(
        self, worker: WorkerId, numbers: list[int], count: int, shift: int, news: bool, priority: Priority,
        length: int, late: bool, own: tuple[str, ...],
    ) -> None:  # fmt: skip
        claims = self.chosen(numbers)
        deltas = [self.delta(claim, count, shift) for claim in claims]
        rescores = [self.rescore(claim, priority, length, late) for claim in claims] if news else []
        self.both(
            lambda store: store.extend(worker, deltas, rescores, lease_seconds=5.0, version=builders.VERSION, lanes=own)
        )

    @rule(
        numbers=picks, count=counts, shift=shifts, status=st.sampled_from([Status.OK, Status.OK, *Status]),
        news=st.booleans(), priority=priorities, late=st.booleans(),
    )  # fmt: skip
    def complete(
        self, numbers: list[int], count: int, shift: int, status: Status, news: bool, priority: Priority, late: bool
    ) -> None:
        finishes = [
            builders.finish(
                claim,
                count,
                self.delta(claim, count, shift).offset,
                self.rescore(claim, priority, 0, late) if news else None,
                status,
            )
            for claim in self.chosen(numbers)
        ]
        self.both(lambda store: store.complete(WORKERS[0], finishes))

    @rule(numbers=picks, count=counts, shift=shifts)
    def give_back(self, numbers: list[int], count: int, shift: int) -> None:
        deltas = [self.delta(claim, count, shift) for claim in self.chosen(numbers)]
        self.both(lambda store: store.give_back(WORKERS[0], deltas))

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule(losses=st.integers(0, 2), everything=st.booleans())
    def reap(self, losses: int, everything: bool) -> None:
        self.both(lambda store: store.reap(losses, everything=everything))

    @rule(worker=workers, state=st.sampled_from(["starting", "idle", "busy", "draining"]))
    def heartbeat(self, worker: WorkerId, state: str) -> None:
        self.both(lambda store: store.heartbeat(worker, WorkerInfo(state, {"slots": 4})))

    @rule(worker=workers)
    def deregister(self, worker: WorkerId) -> None:
        self.both(lambda store: store.deregister(worker))

    @rule(worker=workers)
    def request_drain(self, worker: WorkerId) -> None:
        self.both(lambda store: store.request_drain(worker.name))

    @rule(batch=st.sampled_from(BATCHES))
    def seal(self, batch: int) -> None:
        self.both(lambda store: store.seal(batch))

    @precondition(lambda self: len(self.claims) > 20)
    @rule(batch=st.sampled_from(BATCHES))
    def abort(self, batch: int) -> None:
        self.both(lambda store: store.abort(batch))

    # ---- what must hold

    @invariant()
    def all_that_is_seen_is_the_same(self) -> None:
        records = self.both(self.look)
        leased = [record for record in records if record.state is State.LEASED]
        for worker in WORKERS:
            pulse = self.pulse(worker)
            assert pulse.inflight == len(leased)
            assert pulse.waiting == sum(record.state is State.QUEUED for record in records)
        for record in records:
            check_tokens(record)
        results = self.both(lambda store: store.results(FIRST_CURSOR, 1000))
        assert len({result.request for result in results}) == len(results)

    async def look(self, store: Store) -> list[RequestRecord]:
        for spec in self.groups:
            assert await store.group_view(spec.id) == await self.memory.group_view(spec.id)
        for batch in BATCHES:
            assert await store.progress(batch) == await self.memory.progress(batch)
        assert await store.journal(0, 10_000) == await self.memory.journal(0, 10_000)
        assert await store.workers() == await self.memory.workers()
        names = [RequestId(spec.id, index) for spec in self.groups for index in range(spec.size)]
        return [await store.record(name) for name in names]

    def pulse(self, worker: WorkerId) -> Pulse:
        every = (SHARED_LANE, "0", "1")
        reply = self.both(
            lambda store: store.extend(worker, [], [], lease_seconds=5.0, version=builders.VERSION, lanes=every)
        )
        return reply.pulse


def check_tokens(record: RequestRecord) -> None:
    """Tokens follow each other without hole or overlap, and so do the leases that made them."""
    assert record.tokens == builders.tokens(0, count_items(record.tokens))
    assert len(record.logprobs) == len(record.tokens)
    end = 0
    for chunk in record.chunks:
        assert chunk.start == end
        end = chunk.end
    assert end <= count_items(record.tokens)


@pytest.mark.redis
def test_redis_and_the_reference_give_the_same_answers(redis_url: str) -> None:
    machine = type("Machine", (BothStores,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=40))
