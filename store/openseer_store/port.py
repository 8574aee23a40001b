"""What the rest of openseer asks of a store: the verbs of core's chunk queue, asynchronous and batched per call.

Two stores keep this contract: `memory.MemoryStore` (the reference model itself) and `redis_store.RedisStore`.
Both raise `StoreUnavailableError` when a call got no answer within its named limits; every verb may then be repeated,
for each is idempotent. Times are seconds of the store's clock.
"""

from typing import Protocol

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
from openseer_core.group import GroupSpec, GroupView
from openseer_core.ids import GroupId, RequestId, WorkerId

CLAIMING_STATES = frozenset({"idle", "busy"})
"""States of a worker (WorkerInfo.state) in which it counts when load is shared out."""
FIRST_CURSOR = "0-0"
"""The cursor before the first result."""


class WorkerStore(Protocol):
    """What a worker needs."""

    async def claim(self, worker: WorkerId, ask: ClaimAsk) -> list[Claim]:
        """Leases waiting requests, best first (see ChunkQueue.claim); takes back expired leases on the way."""
        ...

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
        """Appends tokens, renews leases (also with an empty delta), tells new facts of groups, reads the pulse."""
        ...

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        """Ends requests; `STALE` replies carry the group's view and ask for a new rescore."""
        ...

    async def give_back(self, worker: WorkerId, deltas: list[Delta]) -> list[Reply]:
        """Returns requests to the queue with their tokens kept."""
        ...

    async def heartbeat(self, worker: WorkerId, info: WorkerInfo) -> Directive:
        """Says how the worker is; all but draining and sick ones count when load is shared out."""
        ...

    async def deregister(self, worker: WorkerId) -> None:
        """Forgets the worker; its drain request goes with it."""
        ...


class DriverStore(Protocol):
    """What a driver, a report or an audit needs."""

    async def now(self) -> float:
        """The store's clock, in seconds."""
        ...

    async def acquire_driver(self, boot: str) -> int:
        """Makes the caller the job's only driver and gives its fence; an earlier one's `acknowledge` then fails."""
        ...

    async def submit(self, groups: list[GroupSpec]) -> int:
        """Queues groups in bounded pieces; those already there are skipped. Returns how many were new."""
        ...

    async def seal(self, batch: int) -> None:
        """Says that the batch has all its groups."""
        ...

    async def progress(self, batch: int) -> BatchProgress:
        """Counts of a batch."""
        ...

    async def results(self, cursor: str, limit: int, wait_seconds: float = 0.0) -> list[Result]:
        """Up to `limit` results after `cursor`; waits up to `wait_seconds` for the first."""
        ...

    async def acknowledge(self, driver: int, cursor: str) -> None:
        """Remembers that all results up to `cursor` are safe. Raises DriverFencedError for an old driver."""
        ...

    async def acknowledged(self) -> str:
        """The last acknowledged cursor (FIRST_CURSOR before any)."""
        ...

    async def workers(self) -> list[WorkerStatus]:
        """The last heartbeat of every registered worker."""
        ...

    async def request_drain(self, worker: str) -> None:
        """Asks the worker of that name to give back what it runs and leave."""
        ...

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        """Takes back expired leases (`everything`: all, uncounted, for a run whose workers are known to be gone)."""
        ...

    async def abort(self, batch: int) -> int:
        """Ends all unfinished requests of a batch as aborted, partial tokens kept."""
        ...

    async def purge(self, *, forget: bool = False) -> None:
        """Deletes everything of this job, as if it had never been submitted; fences issued before stay void.

        `forget`: the job itself is gone; what keeps the fences void goes a day later, so that nothing is left.
        """
        ...

    async def group_view(self, group: GroupId) -> GroupView:
        """What is known of a group."""
        ...

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        """Groups `start` to `start + limit` of a batch, in the order of submission."""
        ...

    async def record(self, request: RequestId) -> RequestRecord:
        """All that is held of one request."""
        ...

    async def journal(self, start: int, limit: int) -> list[JournalEntry]:
        """Entries of the event log in order, from the `start`-th."""
        ...

    async def close(self) -> None:
        """Gives up connections."""
        ...


class Store(WorkerStore, DriverStore, Protocol):
    """All of it."""
