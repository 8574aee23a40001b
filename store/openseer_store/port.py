"""The ports of the store: the verbs of core's ChunkQueue, asynchronous and batched per call.

Two stores implement them: `memory.MemoryStore` (the reference model itself) and `redis_store.RedisStore`.
Both raise `StoreUnavailableError` when a call got no reply within its time limit; every verb is idempotent, so the call
may be repeated. Times are seconds of the job's clock (core's JobClock): it never goes back, and advances by at most
CLOCK_STEP_SECONDS from one call to the next.
"""

from typing import Protocol

from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.queue.batch import BatchRecord, Entry, OpenBatch, QueueLoad
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.messages import (
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
from openseer_core.worker.heartbeat import Heartbeat, HeartbeatReply, WorkerStatus

FIRST_CURSOR = 0
"""The cursor before the first entry of a batch's results stream."""


class WorkerStore(Protocol):
    """The verbs that a worker uses."""

    @property
    def epoch(self) -> int:
        """The latest epoch of the store that a call has seen, 0 before the first.

        After it has changed, the last writes may be lost: their writers repeat them. No number (cursor, batch, fence,
        revision, transaction) is issued twice, even after such a loss.
        """
        ...

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        """Leases waiting requests, best first (see ChunkQueue.claim); also takes back expired leases.

        A repeat with the same `query.number` returns those of the same leases that the worker still holds.
        """
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
        adapters: tuple[str, ...] = (),
    ) -> ExtendReply:
        """Appends tokens, renews leases (also with an empty delta), writes new facts of groups, returns the load.

        `adapters`: versions that the worker has loaded beside `version`.
        """
        ...

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        """Ends requests; a `STALE` reply has the group's view, and the caller computes a new rescore."""
        ...

    async def give_back(self, worker: WorkerId, deltas: list[Delta], *, lost: bool = False) -> list[Reply]:
        """Returns requests to the queue with their tokens; `lost`: the engine failed, which counts as a loss."""
        ...

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        """Waits at most `seconds` for a call to one of the lanes, because requests of `version` or of `adapters` wait
        there.

        True after a call: a claim may then find requests. Few workers are called at a time; each claim that leaves
        requests waiting calls more. A call may be lost, and may come too late."""
        ...

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        """The new tokens of other responses of groups, and the stored responses of earlier batches.

        Groups without any, unknown ones included, are left out. The reply holds at most `limit_bytes` beside the
        earlier responses of one group: tokens without room are returned to the next query, from the positions then
        known. A store that lost its last second may have fewer tokens than the query names: it returns none until it
        has more.
        """
        ...

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        """Stores the worker's state and metrics; in WORKING_STATES the worker has a share of the load.

        The first heartbeat of a boot is evidence that the previous boot died with all its leases. The heartbeat of an
        earlier boot than the present one changes nothing.
        """
        ...

    async def fleet_spec(self) -> FleetSpec:
        """The fleet spec (FleetSpec() before the first write)."""
        ...

    async def deregister(self, worker: WorkerId) -> None:
        """Removes the worker, and its drain request."""
        ...


class DriverStore(Protocol):
    """The verbs that drivers, reports and audits use."""

    @property
    def epoch(self) -> int:
        """As in WorkerStore."""
        ...

    async def now(self) -> float:
        """The job's clock, in seconds."""
        ...

    async def acquire_driver(self, boot: str, held: int = 0) -> int:
        """Makes the caller the job's only driver and returns its fence; an earlier driver's `acknowledge` then fails.

        `held`: the fence that this boot got before; a store that lost its last writes may not have it.
        Raises DriverFencedError if a newer driver has taken over since."""
        ...

    async def base(self) -> int:
        """The base of this epoch's numbers: all are above it. FIRST_BASE in the job's first epoch."""
        ...

    async def fleet_spec(self) -> FleetSpec:
        """As in WorkerStore."""
        ...

    async def memory(self) -> StoreMemory:
        """The memory use of the store."""
        ...

    async def submit(self, groups: list[GroupSpec], driver: int | None = None) -> int:
        """Queues groups in bounded pieces; existing ones are skipped. Returns the number of new ones.

        `driver`: the fence of a driver. Raises DriverFencedError for an old one.
        Raises BatchClosedError for a new group whose batch is sealed and complete, or deleted; NameTakenError
        if another group has its name.
        """
        ...

    async def longest_earlier(self, digests: list[str]) -> list[int]:
        """Tokens of the longest stored response to each prompt (core's prompt_digest), 0 where there is none."""
        ...

    async def seal(self, batch: int, driver: int | None = None) -> None:
        """Closes the batch for new groups. `driver`: as in `submit`.

        If a store has lost some of its groups, the batch is open until it has the same number again.
        """
        ...

    async def progress(self, batch: int) -> BatchProgress:
        """Counts of a batch."""
        ...

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        """Up to `limit` entries of a batch's results after `cursor`; waits up to `wait_seconds` for the first."""
        ...

    async def acknowledge(self, batch: int, cursor: int, driver: int | None = None) -> None:
        """Notes that the reader has stored all entries up to `cursor`; a lower cursor changes nothing.

        In a trainer's sealed batch these entries are deleted, and for each group that ended among them its tokens,
        log-probabilities, chunks and spec: no turn can follow. The group's view, counts and verdict stay.
        `driver`: the fence of a driver. Raises DriverFencedError for an old one."""
        ...

    async def workers(self) -> list[WorkerStatus]:
        """The last heartbeat of every registered worker."""
        ...

    async def request_drain(self, worker: str, revision: int | None = None) -> None:
        """Asks the worker of that name to give back its requests and exit.

        `revision`, here and elsewhere: of the fleet spec that the caller acts on. Raises FleetSpecMovedError, without
        an effect, if another one has replaced it.
        """
        ...

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        """Takes back expired leases (`everything`: all, uncounted, for a run whose workers have all ended).

        A request fails that lost more than `max_losses` leases to deaths, or more than EXPIRY_LIMIT to deaths and
        expiries.
        """
        ...

    async def end(self, batch: int, event: Event = Event.ABORT, revision: int | None = None) -> int:
        """Ends all unfinished requests of a batch (ABORT or CANCEL), keeps partial tokens. Returns their number."""
        ...

    async def purge(self, *, forget: bool = False) -> None:
        """Deletes all data of this job, as if it had never been submitted; fences issued before stay invalid.

        `forget`: the job itself is deleted; the data that keep the fences invalid expire a day later, so that none are
        left.
        """
        ...

    async def group_view(self, group: GroupId) -> GroupView:
        """The view of a group."""
        ...

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        """Groups `start` to `start + limit` of a batch, in the order of submission; freed ones are left out."""
        ...

    async def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        """All data of one request; of its tokens and scores those from `start` on, `most` of them."""
        ...

    async def lengths(self, requests: list[RequestId]) -> list[int]:
        """Tokens that are stored of each request, 0 where none are."""
        ...

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        """Entries of a batch's event log in order, from number `start` on."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class TrainerStore(DriverStore, Protocol):
    """The further verbs that the API uses for a trainer's batches."""

    async def open_batch(self, batch: OpenBatch) -> tuple[BatchRecord, bool]:
        """Opens a batch under a new number, and True; with a key that was used before, that batch and False."""
        ...

    async def batches(self) -> list[BatchRecord]:
        """All batches with data, by number; without the driver's batch 0."""
        ...

    async def batch(self, number: int) -> BatchRecord | None:
        """One batch, also one that was forgotten within the last day."""
        ...

    async def batch_of_key(self, key: str) -> BatchRecord | None:
        """The batch that was opened with this idempotency key; available as long as `batch` returns it."""
        ...

    async def group_names(self, batch: int, start: int, limit: int) -> list[str]:
        """Names of a batch's groups in the order of submission."""
        ...

    async def grow(self, spec: GroupSpec, present: int) -> None:
        """Replaces a group's spec by one with more requests and queues those from number `present` on.

        Only for a batch with a single writer. A group that has them already is not changed. The group's first content
        stays the one that a repeated submission is compared with.
        """
        ...

    async def end_groups(self, groups: list[GroupId], event: Event, index: int | None = None) -> int:
        """Ends unfinished requests of these groups (only number `index`, if given); unknown groups are skipped."""
        ...

    async def carry(self, groups: list[GroupId], batch: int, version: str, stale: tuple[str, ...] = ()) -> int:
        """Moves unfinished groups to another batch (PARKED_BATCH: they wait there), with all tokens and responses.

        There each has the id that `GroupId.carried` returns. Unfinished requests end here as carried_over. There,
        finished responses are reported at once, also in the journal, and the rest is queued for `version`. Groups with
        a token of one of the versions `stale` end here as aborted instead; parked ones are deleted. None moves into a
        batch that was forgotten. Idempotent. Returns the number of moved groups.
        """
        ...

    async def change_version(
        self, batch: int, version: str, stale: tuple[str, ...] = (), revision: int | None = None
    ) -> None:
        """Unfinished requests of the batch continue with `version`; those with tokens of `stale` versions abort.

        Present leases become invalid, and the batch belongs to `version`.
        """
        ...

    async def spec(self, group: GroupId) -> GroupSpec | None:
        """A group as it was submitted; None if it is unknown or was freed."""
        ...

    async def go_on(self, request: RequestId, turn: int, tokens: bytes) -> bool:
        """Appends int32 `tokens` to a response whose turn has ended and queues it again.

        Returns True, also for a repeat. Raises RequestStateError if the turn has not ended, was continued with other
        tokens before, or max_tokens leaves no room; FreedError after its group was freed.
        """
        ...

    async def judge(self, batch: int, verdicts: dict[str, bool]) -> int:
        """Stores which groups are valid, by name; the latest verdict counts. Returns the number of known groups."""
        ...

    async def verdict(self, group: GroupId) -> bool | None:
        """The verdict on a group, None before any."""
        ...

    async def forget(self, batch: int) -> None:
        """Deletes a batch's groups, results and journal in bounded steps; cancels unfinished requests first.

        After an interruption the batch is still in `batches`, as forgotten, and a repeat continues. Counts and
        idempotency key stay for a day.
        """
        ...

    async def load(self) -> QueueLoad:
        """The number of waiting and running requests of the job."""
        ...

    async def swap_fleet_spec(self, fleet_spec: FleetSpec) -> bool:
        """Replaces the fleet spec if its revision follows the present one; False if another writer was first."""
        ...


class Store(WorkerStore, TrainerStore, Protocol):
    """All verbs."""
