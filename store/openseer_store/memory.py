"""The store within one process: the reference queue behind the asynchronous port."""

import asyncio
import time
from collections.abc import Callable

from openseer_core.chunk import (
    BatchProgress,
    Claim,
    ClaimAsk,
    Delta,
    Directive,
    ExtendReply,
    Finish,
    JournalEntry,
    Reply,
    RequestRecord,
    Rescore,
    Result,
    WorkerInfo,
    WorkerStatus,
)
from openseer_core.chunk_queue import EPOCH_STRIDE, REAP_LIMIT, ChunkQueue
from openseer_core.errors import DriverFencedError
from openseer_core.group import GroupSpec, GroupView
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_store.port import CLAIMING_STATES


class MemoryStore:
    """A job's store in memory, for tests, simulations and examples; it ends with the process."""

    def __init__(self, clock: Callable[[], float] = time.time, epoch: int = 1) -> None:
        self._clock = clock
        self._epoch = epoch
        self._queue = ChunkQueue(epoch)
        self._workers: dict[str, tuple[str, float, WorkerInfo]] = {}
        self._drains: set[str] = set()
        self._drivers = 0
        self._driver: tuple[str, int] = ("", 0)
        self._acknowledged = 0
        self._news = asyncio.Event()

    def _tell(self) -> None:
        """Wakes whoever waits for results."""
        self._news.set()
        self._news = asyncio.Event()

    # ---- the worker's verbs

    async def claim(self, worker: WorkerId, ask: ClaimAsk) -> list[Claim]:
        claims = self._queue.claim(worker, ask, self._clock())
        self._tell()
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
    ) -> ExtendReply:
        now = self._clock()
        return self._queue.extend(
            worker, deltas, rescores, now, lease_seconds=lease_seconds, version=version, lanes=lanes
        )

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        replies = self._queue.complete(finishes, self._clock())
        self._tell()
        return replies

    async def give_back(self, worker: WorkerId, deltas: list[Delta]) -> list[Reply]:
        return self._queue.give_back(deltas, self._clock())

    async def heartbeat(self, worker: WorkerId, info: WorkerInfo) -> Directive:
        now = self._clock()
        self._workers[worker.name] = (worker.boot, now, info)
        if info.state in CLAIMING_STATES:
            self._queue.count_in(worker, now)
        else:
            self._queue.count_out(worker)
        return Directive(drain=worker.name in self._drains)

    async def deregister(self, worker: WorkerId) -> None:
        known = self._workers.get(worker.name)
        if known is not None and known[0] != worker.boot:
            return
        self._workers.pop(worker.name, None)
        self._drains.discard(worker.name)
        self._queue.count_out(worker)

    # ---- the driver's verbs

    async def now(self) -> float:
        return self._clock()

    async def acquire_driver(self, boot: str) -> int:
        if self._driver[0] != boot:
            self._drivers += 1
            self._driver = (boot, self._epoch * EPOCH_STRIDE + self._drivers)
        return self._driver[1]

    async def submit(self, groups: list[GroupSpec]) -> int:
        return sum(self._queue.submit(spec) for spec in groups)

    async def seal(self, batch: int) -> None:
        self._queue.seal(batch)

    async def progress(self, batch: int) -> BatchProgress:
        return self._queue.progress(batch)

    async def results(self, cursor: str, limit: int, wait_seconds: float = 0.0) -> list[Result]:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_seconds
        while not (found := self._queue.results(cursor, limit)) and (left := end - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                return []
        return found

    async def acknowledge(self, driver: int, cursor: str) -> None:
        if driver != self._driver[1]:
            raise DriverFencedError(f"driver {driver}: another driver has taken over; this one stops")
        self._acknowledged = max(self._acknowledged, int(cursor.split("-")[0]))

    async def acknowledged(self) -> str:
        return f"{self._acknowledged}-0"

    async def workers(self) -> list[WorkerStatus]:
        return [
            WorkerStatus(name, boot, seen_at, self._queue.inflight(name), info)
            for name, (boot, seen_at, info) in sorted(self._workers.items())
        ]

    async def request_drain(self, worker: str) -> None:
        self._drains.add(worker)

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        total, now = 0, self._clock()
        while True:
            count = self._queue.reap(now, max_losses, everything=everything)
            total += count
            if not everything or count < REAP_LIMIT:
                break
        self._tell()
        return total

    async def abort(self, batch: int) -> int:
        count = self._queue.abort(batch, self._clock())
        self._tell()
        return count

    async def purge(self, *, forget: bool = False) -> None:
        self._epoch += 1
        self._queue = ChunkQueue(self._epoch)
        self._workers.clear()
        self._drains.clear()
        self._driver, self._acknowledged = ("", 0), 0

    # ---- reading

    async def group_view(self, group: GroupId) -> GroupView:
        return self._queue.view(group)

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        return self._queue.groups(batch)[start : start + limit]

    async def record(self, request: RequestId) -> RequestRecord:
        return self._queue.record(request)

    async def journal(self, start: int, limit: int) -> list[JournalEntry]:
        return self._queue.journal(start, limit)

    async def close(self) -> None:
        return
