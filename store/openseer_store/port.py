"""What the rest of openseer needs of a store: the verbs of core's ChunkQueue, asynchronous and batched per call.

Two stores keep this contract: `memory.MemoryStore` (the reference model itself) and `redis_store.RedisStore`.
Both raise `StoreUnavailableError` when a call got no answer within its named limits; every verb may then be repeated,
for each is idempotent. Times are seconds of the job's clock (core's JobClock): it never goes back, and never on by more
than CLOCK_STEP_SECONDS from one call to the next.
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
    """What a worker needs."""

    @property
    def epoch(self) -> int:
        """The latest epoch of the store that a call has met, 0 before the first.

        Once it has changed, what was written last before may be lost: whoever wrote it writes it again. No number
        (cursor, batch, fence, revision, transaction) is given twice whatever was lost.
        """
        ...

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        """Leases waiting requests, best first (see ChunkQueue.claim); takes back expired leases on the way.

        A repeat with the same `query.number` gives the same leases, as far as the worker still holds them.
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
        """Appends tokens, renews leases (also with an empty delta), writes new facts of groups, reads the load.

        `adapters`: versions that the worker has beside `version`.
        """
        ...

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        """Ends requests; `STALE` replies carry the group's view and ask for a new rescore."""
        ...

    async def give_back(self, worker: WorkerId, deltas: list[Delta], *, lost: bool = False) -> list[Reply]:
        """Returns requests to the queue with their tokens kept; `lost`: the engine broke with them, which counts."""
        ...

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        """Waits at most so long until the worker is called to one of the lanes, because requests of the version wait,
        or of one of the adapters that it has.

        True when it was called: a claim may then find something. Few workers are called at a time: each claim that
        leaves something waiting calls more. A call may get lost, and one may come too late.
        """
        ...

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        """What other responses of groups have generated since, and what is kept of earlier batches.

        Groups without news, unknown ones included, are left out. The answer holds at most `limit_bytes` beside the
        earlier responses of one group: what has no room now is given to who asks again from the positions then known.
        Where the store lost its last second it knows less than was asked from: no news until it has caught up.
        """
        ...

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        """Records the worker's state and metrics; in WORKING_STATES it counts when load is shared out.

        The first one of a boot is evidence that the boot before has died with all that it held. One of a boot whose
        name a later one has changes nothing.
        """
        ...

    async def fleet_spec(self) -> FleetSpec:
        """What the fleet follows (FleetSpec() before the first write)."""
        ...

    async def deregister(self, worker: WorkerId) -> None:
        """Forgets the worker; its drain request goes with it."""
        ...


class DriverStore(Protocol):
    """What a driver, a report or an audit needs."""

    @property
    def epoch(self) -> int:
        """As of WorkerStore."""
        ...

    async def now(self) -> float:
        """The job's clock, in seconds."""
        ...

    async def acquire_driver(self, boot: str, held: int = 0) -> int:
        """Makes the caller the job's only driver and gives its fence; an earlier one's `acknowledge` then fails.

        `held`: the fence that this boot was given before, which a store that lost its last writes may not know any
        more. Raises DriverFencedError where a newer driver has taken over since.
        """
        ...

    async def base(self) -> int:
        """What all numbers of this epoch are above: FIRST_BASE in the job's first, in which no writes were lost."""
        ...

    async def fleet_spec(self) -> FleetSpec:
        """As of WorkerStore."""
        ...

    async def memory(self) -> StoreMemory:
        """How full the store is."""
        ...

    async def submit(self, groups: list[GroupSpec], driver: int | None = None) -> int:
        """Queues groups in bounded pieces; those already there are skipped. Returns how many were new.

        `driver`: the fence of a driver. Raises DriverFencedError for an old one.
        Raises BatchClosedError when a new group's batch is sealed and has all its groups, or is gone; NameTakenError
        when another group has its name.
        """
        ...

    async def longest_earlier(self, digests: list[str]) -> list[int]:
        """Tokens of the longest response that is kept of each prompt (core's prompt_digest), 0 where none is."""
        ...

    async def seal(self, batch: int, driver: int | None = None) -> None:
        """Says that the batch has all its groups. `driver`: as in `submit`.

        Where a store has lost some of them, the batch is open until it has as many again.
        """
        ...

    async def progress(self, batch: int) -> BatchProgress:
        """Counts of a batch."""
        ...

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        """Up to `limit` results and ends of groups of a batch after `cursor`; waits so long for the first."""
        ...

    async def acknowledge(self, batch: int, cursor: int, driver: int | None = None) -> None:
        """Remembers that everything up to `cursor` is safe; it never goes back.

        Of a trainer's sealed batch the entries up to there go, and of each group whose end is among them tokens,
        log-probabilities, chunks and spec: no turn can follow. The group's view, counts and verdict stay.

        `driver`: the fence of a driver. Raises DriverFencedError for an old one.
        """
        ...

    async def workers(self) -> list[WorkerStatus]:
        """The last heartbeat of every registered worker."""
        ...

    async def request_drain(self, worker: str, revision: int | None = None) -> None:
        """Asks the worker of that name to give back what it runs and exit.

        `revision`, here and elsewhere: of the fleet spec that the call follows from. Raises FleetSpecMovedError, and
        does nothing more, once another one is there: whoever decided was late.
        """
        ...

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        """Takes back expired leases (`everything`: all, uncounted, for a run whose workers are known to be gone).

        A request fails that lost more than `max_losses` to deaths, or more than EXPIRY_LIMIT to deaths and silence.
        """
        ...

    async def end(self, batch: int, event: Event = Event.ABORT, revision: int | None = None) -> int:
        """Ends all unfinished requests of a batch (ABORT or CANCEL), partial tokens kept. Returns how many."""
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
        """Groups `start` to `start + limit` of a batch, in the order of submission; without those that were freed."""
        ...

    async def record(self, request: RequestId, start: int = 0) -> RequestRecord:
        """All that is stored of one request, of its tokens and their scores those from `start` on."""
        ...

    async def lengths(self, requests: list[RequestId]) -> list[int]:
        """Tokens that are stored of each request, 0 where none are."""
        ...

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        """Entries of a batch's event log in order, from the `start`-th."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class TrainerStore(DriverStore, Protocol):
    """What the API needs beside that, to serve a trainer's many batches."""

    async def open_batch(self, batch: OpenBatch) -> tuple[BatchRecord, bool]:
        """Opens a batch and gives it a number; with a key that was used before, that batch again and False."""
        ...

    async def batches(self) -> list[BatchRecord]:
        """All batches whose data are there, by number; the driver's batch 0 is not among them."""
        ...

    async def batch(self, number: int) -> BatchRecord | None:
        """One batch, also one that was forgotten within the last day."""
        ...

    async def batch_of_key(self, key: str) -> BatchRecord | None:
        """The batch that was opened with this idempotency key, for as long as `batch` knows it."""
        ...

    async def group_names(self, batch: int, start: int, limit: int) -> list[str]:
        """Names of a batch's groups in the order of submission."""
        ...

    async def grow(self, spec: GroupSpec, present: int) -> None:
        """Replaces a group's spec by one with more requests and queues those from the `present`-th on.

        Only for a batch with a single writer. A group that has them already is left as it is. A repeat of its
        submission is what was submitted first.
        """
        ...

    async def end_groups(self, groups: list[GroupId], event: Event, index: int | None = None) -> int:
        """Ends unfinished requests of these groups (`index`: only those); unknown groups are skipped."""
        ...

    async def carry(self, groups: list[GroupId], batch: int, version: str, stale: tuple[str, ...] = ()) -> int:
        """Moves unfinished groups to another batch (PARKED_BATCH: they wait there), with all tokens and responses.

        There each has the id that `GroupId.carried` gives it.

        What is unfinished here ends as carried_over. There, finished responses are reported at once and the rest is
        queued for `version`. Groups with a token of one of the versions `stale` end here as aborted instead; parked
        ones just go. None moves into a batch that was forgotten. Idempotent. Returns how many moved.
        """
        ...

    async def change_version(
        self, batch: int, version: str, stale: tuple[str, ...] = (), revision: int | None = None
    ) -> None:
        """Unfinished requests of the batch go on with other weights; those with tokens of `stale` versions abort.

        Leases still out are voided. The batch belongs to `version` from now on.
        """
        ...

    async def spec(self, group: GroupId) -> GroupSpec | None:
        """A group as it was submitted; None when it is unknown, or was freed."""
        ...

    async def go_on(self, request: RequestId, turn: int, tokens: bytes) -> bool:
        """Appends int32 `tokens` to a response whose turn has finished and queues it again.

        True also for a repeat. Raises RequestStateError when that is not its state, the turn was followed by other
        tokens, or no room is left in max_tokens; FreedError after its group was freed.
        """
        ...

    async def judge(self, batch: int, verdicts: dict[str, bool]) -> int:
        """Notes which groups are valid, by name; the latest verdict counts. Returns how many groups were known."""
        ...

    async def verdict(self, group: GroupId) -> bool | None:
        """The verdict on a group, None before any."""
        ...

    async def forget(self, batch: int) -> None:
        """Deletes a batch's groups, results and journal in bounded steps; what is unfinished is cancelled first.

        One that was cut short is among `batches`, forgotten, and a repeat goes on with it. Counts and idempotency key
        stay for a day.
        """
        ...

    async def load(self) -> QueueLoad:
        """How much waits and runs in the whole job."""
        ...

    async def swap_fleet_spec(self, fleet_spec: FleetSpec) -> bool:
        """Replaces the fleet spec if its revision follows the present one; False when another writer was first."""
        ...


class Store(WorkerStore, TrainerStore, Protocol):
    """All of it."""
