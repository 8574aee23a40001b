"""The in-process store: the reference queue behind the asynchronous port."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from openseer_core.errors import DriverFencedError, FleetSpecMovedError
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.model.job_clock import JobClock
from openseer_core.model.job_queue import JobQueue
from openseer_core.numbers import FIRST_BASE, base_of, issue, next_epoch
from openseer_core.queue.batch import BatchRecord, Entry, OpenBatch, QueueLoad
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.messages import (
    REAP_LIMIT,
    BatchProgress,
    Claim,
    ClaimQuery,
    Delta,
    ExtendReply,
    Finish,
    JournalEntry,
    Reply,
    RequestRecord,
    Rescore,
)
from openseer_core.queue.siblings import SiblingQuery, Siblings
from openseer_core.queue.states import Event
from openseer_core.queue.store_memory import StoreMemory
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import WORKING_STATES, Heartbeat, HeartbeatReply, WorkerState, WorkerStatus


class MemoryStore:
    """A job's store in memory, for tests, simulations and examples; it ends with the process."""

    def __init__(self, clock: Callable[[], float] = time.time, epoch: int = 0) -> None:
        """`epoch`: the store's epoch; 0: a new one."""
        self._clock = clock
        self.epoch = epoch or next_epoch(0, clock())
        self._base = FIRST_BASE
        self._time = JobClock()
        self._queue = JobQueue(self._base, self._time, base_of(self.epoch))
        self._workers: dict[str, tuple[str, float, Heartbeat]] = {}
        self._drains: set[str] = set()
        self._driver: tuple[str, int] = ("", 0)
        self._fleet_spec = FleetSpec()
        self._idle_seconds = self._busy_seconds = 0.0
        self._changed = asyncio.Event()

    def _now(self, lease_seconds: float = 0.0) -> float:
        return self._time.tick(self._clock(), lease_seconds)

    def _notify(self) -> None:
        """Wakes all calls that wait for results or requests."""
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- the worker's verbs

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        claims = self._queue.claim(worker, query, self._now(query.lease_seconds))
        self._notify()
        return claims

    async def extend(
        self,
        worker: WorkerId,
        deltas: list[Delta],
        rescores: list[Rescore],
        *,
        lease_seconds: float,
        version: str,
        lanes: tuple[str, ...],
        adapters: tuple[str, ...] = (),
    ) -> ExtendReply:
        now = self._now(lease_seconds)
        return self._queue.extend(
            worker,
            deltas,
            rescores,
            now,
            lease_seconds=lease_seconds,
            version=version,
            lanes=lanes,
            adapters=adapters,
        )

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        replies = self._queue.complete(finishes, self._now())
        self._notify()
        return replies

    async def give_back(self, worker: WorkerId, deltas: list[Delta], *, lost: bool = False) -> list[Reply]:
        replies = self._queue.give_back(deltas, self._now(), lost=lost)
        self._notify()
        return replies

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self._queue.take_call((version, *adapters), lanes):
            try:
                async with asyncio.timeout_at(end):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        return self._queue.siblings(queries, limit_bytes, self._time.read(self._clock()))

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        now = self._now()
        if not self._queue.note_boot(worker, now):
            return self._heartbeat_reply(worker)
        boot, _, before = self._workers.get(worker.name, ("", 0.0, Heartbeat(WorkerState.STARTING)))
        before = before if boot == worker.boot else Heartbeat(WorkerState.STARTING)
        self._idle_seconds += max(0.0, info.idle_seconds - before.idle_seconds)
        self._busy_seconds += max(0.0, info.busy_seconds - before.busy_seconds)
        self._workers[worker.name] = (worker.boot, now, info)
        if info.state in WORKING_STATES:
            metrics = info.metrics
            self._queue.claimers.note_heartbeat(worker.name, metrics.limits.request_tokens, now, metrics.free_pace)
        else:
            self._queue.claimers.count_out(worker.name)
        self._notify()
        return self._heartbeat_reply(worker)

    def _heartbeat_reply(self, worker: WorkerId) -> HeartbeatReply:
        return HeartbeatReply(worker.name in self._drains, self._fleet_spec.revision, self._queue.claimers.largest)

    async def fleet_spec(self) -> FleetSpec:
        return self._fleet_spec.read_at(self._base)

    async def deregister(self, worker: WorkerId) -> None:
        known = self._workers.get(worker.name)
        if known is not None and known[0] != worker.boot:
            return
        self._workers.pop(worker.name, None)
        self._drains.discard(worker.name)
        self._queue.forget_worker(worker)

    # ---- the driver's verbs

    async def now(self) -> float:
        return self._now()

    async def acquire_driver(self, boot: str, held: int = 0) -> int:
        present = self._driver[1]
        if self._driver[0] != boot:
            if present > held > 0:
                raise DriverFencedError(f"driver {held}: another driver has taken over; this one stops")
            self._driver = (boot, held or issue(present, base_of(self.epoch)))
        return self._driver[1]

    def _check_driver(self, driver: int | None) -> None:
        if driver is not None and driver != self._driver[1]:
            raise DriverFencedError(f"driver {driver}: another driver has taken over; this one stops")

    async def base(self) -> int:
        return self._base

    async def memory(self) -> StoreMemory:
        return StoreMemory()

    async def submit(self, groups: list[GroupSpec], driver: int | None = None) -> int:
        self._check_driver(driver)
        new = sum(self._queue.submit(spec) for spec in groups)
        self._notify()
        return new

    async def longest_earlier(self, digests: list[str]) -> list[int]:
        return self._queue.longest_earlier(digests, self._time.read(self._clock()))

    async def seal(self, batch: int, driver: int | None = None) -> None:
        self._check_driver(driver)
        self._queue.seal(batch)

    async def progress(self, batch: int) -> BatchProgress:
        return self._queue.progress(batch)

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_seconds
        while not (found := self._queue.results(batch, cursor, limit)) and (left := end - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return []
        return found

    async def acknowledge(self, batch: int, cursor: int, driver: int | None = None) -> None:
        self._check_driver(driver)
        self._queue.acknowledge(batch, cursor)

    async def workers(self) -> list[WorkerStatus]:
        return [
            WorkerStatus(name, boot, seen_at, self._queue.inflight(name), info)
            for name, (boot, seen_at, info) in sorted(self._workers.items())
        ]

    def _check_revision(self, revision: int | None) -> None:
        if revision not in (None, self._fleet_spec.revision):
            raise FleetSpecMovedError("the fleet spec has changed meanwhile")

    async def request_drain(self, worker: str, revision: int | None = None) -> None:
        self._check_revision(revision)
        self._drains.add(worker)

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        total, now = 0, self._now()
        while True:
            count = self._queue.reap(now, max_losses, everything=everything)
            total += count
            if not everything or count < REAP_LIMIT:
                break
        self._notify()
        return total

    async def end(self, batch: int, event: Event = Event.ABORT, revision: int | None = None) -> int:
        self._check_revision(revision)
        count = self._queue.end_batch(batch, event, self._now())
        self._notify()
        return count

    async def purge(self, *, forget: bool = False) -> None:
        self.epoch = next_epoch(self.epoch, self._clock())
        self._base = base_of(self.epoch)
        self._queue = JobQueue(self._base, self._time, base_of(self.epoch))
        self._workers.clear()
        self._drains.clear()
        self._driver, self._fleet_spec = ("", 0), FleetSpec()
        self._idle_seconds = self._busy_seconds = 0.0

    # ---- reading

    async def group_view(self, group: GroupId) -> GroupView:
        return self._queue.view(group)

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        return self._queue.groups(batch, start, limit)

    async def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        return self._queue.record(request, start, most)

    async def lengths(self, requests: list[RequestId]) -> list[int]:
        return self._queue.lengths(requests)

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        return self._queue.journal(batch, start, limit)

    # ---- the trainer's verbs

    async def open_batch(self, batch: OpenBatch) -> tuple[BatchRecord, bool]:
        return self._queue.open_batch(batch, self._now())

    async def batches(self) -> list[BatchRecord]:
        return self._queue.batches()

    async def batch(self, number: int) -> BatchRecord | None:
        return self._queue.batch(number)

    async def batch_of_key(self, key: str) -> BatchRecord | None:
        return self._queue.batch_of_key(key)

    async def group_names(self, batch: int, start: int, limit: int) -> list[str]:
        return self._queue.names(batch)[start : start + limit]

    async def grow(self, spec: GroupSpec, present: int) -> None:
        self._queue.grow(spec, present)
        self._notify()

    async def end_groups(self, groups: list[GroupId], event: Event, index: int | None = None) -> int:
        count = self._queue.end(groups, event, self._now(), index)
        self._notify()
        return count

    async def carry(self, groups: list[GroupId], batch: int, version: str, stale: tuple[str, ...] = ()) -> int:
        moved = self._queue.carry(groups, batch, version, stale, self._now())
        self._notify()
        return moved

    async def change_version(
        self, batch: int, version: str, stale: tuple[str, ...] = (), revision: int | None = None
    ) -> None:
        self._check_revision(revision)
        self._queue.change_version(batch, version, stale, self._now())
        self._notify()

    async def spec(self, group: GroupId) -> GroupSpec | None:
        return self._queue.spec(group)

    async def go_on(self, request: RequestId, turn: int, tokens: bytes) -> bool:
        gone_on = self._queue.go_on(request, turn, tokens, self._now())
        self._notify()
        return gone_on

    async def judge(self, batch: int, verdicts: dict[str, bool]) -> int:
        return self._queue.judge(batch, verdicts)

    async def verdict(self, group: GroupId) -> bool | None:
        return self._queue.verdict(group)

    async def forget(self, batch: int) -> None:
        self._queue.forget(batch, self._now())
        self._notify()

    async def load(self) -> QueueLoad:
        return replace(self._queue.load(), idle_seconds=self._idle_seconds, busy_seconds=self._busy_seconds)

    async def swap_fleet_spec(self, fleet_spec: FleetSpec) -> bool:
        if fleet_spec == self._fleet_spec:
            return True
        if fleet_spec.revision != issue(self._fleet_spec.revision, self._base):
            return False
        self._fleet_spec = fleet_spec
        self._notify()
        return True

    async def close(self) -> None:
        return
