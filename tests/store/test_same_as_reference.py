"""The Redis store and the reference queue, driven side by side with the same calls and the same times."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from openseer_core.errors import BatchClosedError, NameTakenError, RequestStateError
from openseer_core.ids import PARKED_BATCH, GroupId, RequestId, WorkerId
from openseer_core.model.request_queue import OUTCOME_EVENTS
from openseer_core.queue import budgets
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.queue.kv_blocks import KvGroup, KvLayout
from openseer_core.queue.messages import Claim, Delta, FleetLoad, RequestRecord, Rescore, Result
from openseer_core.queue.siblings import SiblingQuery
from openseer_core.queue.states import Event, State, Status
from openseer_core.tokens import count_items
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.memory import MemoryStore
from openseer_store.port import FIRST_CURSOR, Store
from openseer_store.redis_store import RedisStore
from tests.repository import SOAK
from tests.store import builders

T = TypeVar("T")

WORKERS = [WorkerId("ann", "1"), WorkerId("ann", "2"), WorkerId("bob", "1")]
LANES = [(SHARED_LANE,), ("0", SHARED_LANE), ("1",)]
LAYOUTS = [builders.FULL, KvLayout((KvGroup(16), KvGroup(8, count=2, fixed=1, most=1, most_computing=3)))]
LIMITS = [1000, 48, 20]
BATCHES = [0, 1]
ALL = [*BATCHES, PARKED_BATCH]
MOST_GROUPS = 8
DIGESTS = ["", "p", "q"]

scores = st.integers(-40, 40).map(lambda number: number / 4)
priorities = st.builds(Priority, scores, st.sampled_from([0.0, 1.0, -0.5]), st.none() | scores)
workers = st.sampled_from(WORKERS)
lanes = st.sampled_from([SHARED_LANE, SHARED_LANE, "0", "1"])
requests = st.tuples(scores | st.just(0.0), lanes)
counts = st.integers(0, 6)
shifts = st.sampled_from([0, 0, 0, -2, -1, 1])
picks = st.lists(st.integers(0, 1000), max_size=4)
versions = st.sampled_from([builders.VERSION, builders.VERSION, "v2"])
endings = st.sampled_from([Event.ABORT, Event.CANCEL])
SMALL_BUDGETS = {
    "HEAD_WINDOW": 1, "CLAIM_REQUESTS": 3, "CLAIM_BYTES": 160, "SUBMIT_GROUPS": 1, "STEP_GROUPS": 2, "STEP_REQUESTS": 2,
    "MOVE_REQUESTS": 1, "STEP_BYTES": 8,
}  # fmt: skip
_jobs = itertools.count()


class BothStores(RuleBasedStateMachine):
    """Makes every call on both stores; answers and all readable state must be equal."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.clock = builders.Clock()
        self.runner = asyncio.Runner()
        self.redis = RedisStore(self.url, f"both-{next(_jobs)}", clock=self.clock, retry_seconds=5.0)
        self.runner.run(self.redis.connect())
        self.memory = MemoryStore(self.clock, self.redis.epoch)
        self.groups: list[GroupSpec] = []
        self.claims: list[Claim] = []
        self.fences: dict[RequestId, int] = {}

    def teardown(self) -> None:
        for batch in BATCHES:
            self.both(lambda store, batch=batch: store.end(batch))
            self.both(lambda store, batch=batch: store.seal(batch))
        self.all_that_is_seen_is_the_same()
        for batch in BATCHES:
            results = self.results(batch)
            turns = {(record.request, record.turn) for record in self.runner.run(self.look(self.memory))}
            assert {result.request for result in results} == {
                request for request, _ in turns if request.group.batch == batch
            }
            assert self.runner.run(self.memory.progress(batch)).complete
        self.runner.run(self.redis.close())
        self.runner.close()

    def both(self, call: Callable[[Store], Awaitable[T]]) -> T:
        async def ask() -> tuple[T, T]:
            return await call(self.memory), await call(self.redis)

        expected, found = self.runner.run(ask())
        assert found == expected
        return expected

    def both_or_error(self, call: Callable[[Store], Awaitable[T]]) -> T | str:
        async def told(store: Store) -> T | str:
            try:
                return await call(store)
            except (BatchClosedError, NameTakenError, RequestStateError) as error:
                return f"{type(error).__name__}: {error}"

        return self.both(told)

    def gids(self, numbers: list[int]) -> list[GroupId]:
        """Groups of all batches, parked groups included."""
        every = [
            GroupId(batch, name) for batch in ALL for name in self.runner.run(self.memory.group_names(batch, 0, 99))
        ]
        return list(dict.fromkeys(every[number % len(every)] for number in numbers)) if every else []

    def chosen(self, numbers: list[int]) -> list[Claim]:
        """Earlier claims, lost ones included, the latest first."""
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
    @rule(
        rows=st.lists(requests, min_size=1, max_size=5), priority=priorities, prompt=st.integers(0, 64),
        history=st.sampled_from(DIGESTS), size=st.integers(1, 3),
    )  # fmt: skip
    def submit(self, rows: list[tuple[float, str]], priority: Priority, prompt: int, history: str, size: int) -> None:
        number = len(self.groups)
        ranks, bound = [rank for rank, _ in rows], [lane for _, lane in rows]
        spec = builders.group(
            f"g/{number % 3}-{number}", 0, priority, batch=number % 2, ranks=ranks, lanes=bound, prompt_tokens=prompt,
            history=history, history_size=size, longest_earlier=self.longest_earlier()[history],
        )  # fmt: skip
        self.groups.append(spec)
        self.both_or_error(lambda store: store.submit([spec, self.groups[0]]))

    @precondition(lambda self: bool(self.groups))
    @rule(number=st.integers(0, 99), other=st.booleans())
    def submit_again(self, number: int, other: bool) -> None:
        spec = self.groups[number % len(self.groups)]
        again = replace(spec, enqueued_at=self.clock(), max_tokens=spec.max_tokens + other)
        self.both_or_error(lambda store: store.submit([again]))

    @rule(
        worker=workers, slots=counts, blocks=st.integers(0, 20), own=st.sampled_from(LANES), slack=st.integers(0, 3),
        version=versions, number=st.sampled_from([0, 0, 1, 2]), layout=st.sampled_from(LAYOUTS),
        limit=st.sampled_from(LIMITS), both_versions=st.booleans(), pace=st.sampled_from([0.0, 2.0, 2.1, 40.0]),
    )  # fmt: skip
    def claim(
        self, worker: WorkerId, slots: int, blocks: int, own: tuple[str, ...], slack: int, version: str, number: int,
        layout: KvLayout, limit: int, both_versions: bool, pace: float,
    ) -> None:  # fmt: skip
        room = builders.query(
            slots,
            blocks=blocks,
            lanes=own,
            slack=slack,
            lease_seconds=5.0,
            max_losses=1,
            version=version,
            number=number,
            layout=layout,
            context_tokens=limit,
            adapters=("v2" if version == builders.VERSION else builders.VERSION,) if both_versions else (),
            pace=pace,
        )
        for claim in self.both(lambda store: store.claim(worker, room)):
            assert claim.fence > self.fences.get(claim.request, 0) or (
                number and claim.fence == self.fences[claim.request]
            )
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
        numbers=picks, count=counts, shift=shifts, news=st.booleans(),
        status=st.sampled_from([Status.OK, Status.OK, Status.OK, *OUTCOME_EVENTS]),
        priority=priorities, late=st.booleans(),
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

    @rule(numbers=picks, count=counts, shift=shifts, lost=st.sampled_from([False, False, True]))
    def give_back(self, numbers: list[int], count: int, shift: int, lost: bool) -> None:
        deltas = [self.delta(claim, count, shift) for claim in self.chosen(numbers)]
        self.both(lambda store: store.give_back(WORKERS[0], deltas, lost=lost))

    @rule(own=st.sampled_from(LANES), version=versions)
    def wait_for_work(self, own: tuple[str, ...], version: str) -> None:
        others = tuple({builders.VERSION, "v2"} - {version})
        self.both(lambda store: store.wait_for_work(version, own, 0.01, others))

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(math.ceil(seconds)):
            self.clock.seconds += min(seconds, 1.0)
            self.both(lambda store: store.now())

    @rule(seconds=st.sampled_from([-3600.0, -0.5, 2.0, 11.0]))
    def clock_steps(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule(losses=st.integers(0, 2), everything=st.booleans())
    def reap(self, losses: int, everything: bool) -> None:
        self.both(lambda store: store.reap(losses, everything=everything))

    @rule(
        worker=workers, state=st.sampled_from(["starting", "idle", "busy", "draining"]),
        limit=st.none() | st.sampled_from(LIMITS), free_pace=st.sampled_from([0.0, 2.5, 2.625, 40.0]),
    )  # fmt: skip
    def heartbeat(self, worker: WorkerId, state: str, limit: int | None, free_pace: float) -> None:
        known: dict[str, float] = {"slots": 4} if limit is None else {"worker_tokens": limit}
        metrics = WorkerMetrics({**known, "free_pace": free_pace})
        self.both(lambda store: store.heartbeat(worker, Heartbeat(WorkerState(state), metrics)))

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
    @rule(batch=st.sampled_from(BATCHES), event=endings)
    def end(self, batch: int, event: Event) -> None:
        self.both(lambda store: store.end(batch, event))

    @rule(numbers=picks, event=endings, index=st.none() | st.integers(0, 4))
    def end_groups(self, numbers: list[int], event: Event, index: int | None) -> None:
        groups = [gid for gid in self.gids(numbers) if gid.batch in BATCHES][:1]
        self.both(lambda store: store.end_groups(groups, event, index))

    @rule(numbers=picks, batch=st.sampled_from(ALL), version=versions, stale=st.sampled_from([(), (), ("v2",)]))
    def carry(self, numbers: list[int], batch: int, version: str, stale: tuple[str, ...]) -> None:
        groups = [gid for gid in self.gids(numbers) if gid.batch != batch][:2]
        self.both(lambda store: store.carry(groups, batch, version, stale))

    @rule(batch=st.sampled_from(BATCHES), version=versions, stale=st.sampled_from([(), ("v2",)]))
    def change_version(self, batch: int, version: str, stale: tuple[str, ...]) -> None:
        self.both(lambda store: store.change_version(batch, version, stale))

    @rule(numbers=picks, index=st.integers(0, 4), turn=st.integers(0, 2), count=counts)
    def go_on(self, numbers: list[int], index: int, turn: int, count: int) -> None:
        for gid in self.gids(numbers):
            size = self.runner.run(self.memory.group_view(gid)).size
            request = RequestId(gid, index % size)
            start = count_items(self.runner.run(self.memory.record(request)).tokens)
            appended = builders.tokens(start, count)
            if gid.batch in BATCHES:
                self.both_or_error(lambda store, one=request, more=appended: store.go_on(one, turn, more))

    @rule(
        numbers=picks, limit=st.integers(0, 40), earlier=st.lists(st.booleans(), min_size=4, max_size=4),
        known=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 0, 0, 1, 4, 30])), max_size=6),
    )  # fmt: skip
    def siblings(self, numbers: list[int], limit: int, earlier: list[bool], known: list[tuple[int, int]]) -> None:
        groups = [*self.gids(numbers), GroupId(0, "nobody")]
        queries = [SiblingQuery(gid, tuple(known), also) for gid, also in zip(groups, earlier, strict=False)]
        news = self.both(lambda store: store.siblings(queries, 4 * limit))
        assert sum(len(data) for siblings in news for *_, data in siblings.news) <= 4 * limit
        for siblings in news:
            for index, position, data in siblings.news:
                record = self.runner.run(self.memory.record(RequestId(siblings.group, index)))
                assert data == record.tokens[4 * position :][: len(data)]

    @rule(numbers=picks, valid=st.booleans())
    def judge(self, numbers: list[int], valid: bool) -> None:
        verdicts = {gid.name: valid for gid in self.gids(numbers)}
        self.both(lambda store: store.judge(0, verdicts))

    # ---- invariants

    @invariant()
    def all_that_is_seen_is_the_same(self) -> None:
        records = self.both(self.look)
        leased = [record for record in records if record.state is State.LEASED]
        for worker in WORKERS:
            fleet_load = self.fleet_load(worker)
            assert fleet_load.inflight == len(leased)
        for record in records:
            check_tokens(record)
        waiting = sum(record.state is State.QUEUED for record in records if record.request.group.batch in BATCHES)
        assert sum(self.both(lambda store: store.load()).waiting.values()) == waiting
        self.longest_earlier()
        for batch in BATCHES:
            results = self.results(batch)
            assert len({(result.request, result.turn) for result in results}) == len(results)

    def longest_earlier(self) -> dict[str, int]:
        lengths = self.both(lambda store: store.longest_earlier(DIGESTS))
        return dict(zip(DIGESTS, lengths, strict=True))

    def results(self, batch: int) -> list[Result]:
        entries = self.both(lambda store: store.results(batch, FIRST_CURSOR, 1000))
        assert [entry.cursor for entry in entries] == list(range(1, len(entries) + 1))
        return [entry for entry in entries if isinstance(entry, Result)]

    async def look(self, store: Store) -> list[RequestRecord]:
        records: list[RequestRecord] = []
        for batch in ALL:
            assert await store.progress(batch) == await self.memory.progress(batch)
            assert await store.journal(batch, 0, 10_000) == await self.memory.journal(batch, 0, 10_000)
            names = await store.group_names(batch, 0, 1000)
            for spec in await store.groups(batch, 0, 1000):
                assert await store.group_view(spec.id) == await self.memory.group_view(spec.id)
                assert await store.verdict(spec.id) == await self.memory.verdict(spec.id)
                records += [await store.record(RequestId(spec.id, index)) for index in range(spec.size)]
            assert len(names) == len(
                {record.request.group for record in records if record.request.group.batch == batch}
            )
        assert await store.workers() == await self.memory.workers()
        return records

    def fleet_load(self, worker: WorkerId) -> FleetLoad:
        every = (SHARED_LANE, "0", "1")
        reply = self.both(
            lambda store: store.extend(
                worker, [], [], lease_seconds=5.0, version=builders.VERSION, lanes=every, adapters=("v2",)
            )
        )
        return reply.fleet_load


def check_tokens(record: RequestRecord) -> None:
    """Tokens follow each other without hole or overlap, and so do the leases that made them."""
    assert record.tokens == builders.tokens(0, count_items(record.tokens))
    items = 2 + 2 * builders.TOP if record.request.index % 2 else 1
    assert len(record.logprobs) == len(record.tokens) * items
    end = 0
    for chunk in record.chunks:
        assert chunk.start == end
        end = chunk.end
    assert end <= count_items(record.tokens)


def same_answers(url: str, examples: int) -> None:
    machine = type("Machine", (BothStores,), {"url": url})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40))


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(3600 if SOAK else 400)
def test_redis_and_the_reference_give_the_same_answers(redis_url: str) -> None:
    same_answers(redis_url, 400 if SOAK else 20)


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(3600 if SOAK else 400)
def test_both_give_the_same_answers_if_every_call_fills_its_budget(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL_BUDGETS.items():
        monkeypatch.setattr(budgets, name, value)
    same_answers(redis_url, 400 if SOAK else 20)
