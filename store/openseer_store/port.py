"""The protocols of the store: its verbs, as in core's reference model (JobQueue), asynchronous and batched per call.

Two stores implement them: `memory.MemoryStore` (the reference model itself) and `redis_store.RedisStore`. Both raise
`StoreUnavailableError` if a call got no reply within its time limit. Every verb is idempotent, so the call may be
repeated. Times are seconds of the job's clock (core's JobClock), which never goes back and advances by at most
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
        """The latest epoch of the store that a call has seen, 0 before the first call.

        When the epoch has changed, the store may have lost the latest writes; their writers repeat them. No number
        (cursor, batch, fence, revision, transaction) is issued twice, even after such a loss.
        """
        ...

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        """Leases waiting requests to the worker: those with the lowest scores that fit into its KV cache and its share
        of the load. Returns the leases, with the tokens of each request so far. Also takes back expired leases.

        See ChunkQueue.claim. A repeat with the same `query.number` returns the leases of the first call that the worker
        still holds.
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
        """Appends new tokens to requests and renews their leases (also with an empty delta); writes the new facts and
        priorities of groups (`rescores`). Returns the outcome of each delta, and the fleet load.

        A rescore that was computed from an older revision is not written: the reply contains the group's present view.
        `adapters`: versions that the worker has loaded beside `version`.
        """
        ...

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        """Ends requests with their last tokens, status and reason, and returns the outcome of each. After the outcome
        STALE the caller computes a new rescore from the returned view, and repeats."""
        ...

    async def give_back(self, worker: WorkerId, deltas: list[Delta], *, lost: bool = False) -> list[Reply]:
        """Returns requests to the queue with their tokens, and returns the outcome of each. `lost`: the engine failed,
        which counts as a loss."""
        ...

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        """Waits up to `seconds` until the store calls a worker to one of the lanes, because requests of `version` or
        `adapters` wait there. Returns whether there was a call.

        After a call a claim may find requests. At most two calls per lane are pending: each change of a lane's
        number of waiting requests that leaves some waiting sets its pending calls to two. A call may be lost, or arrive
        after another worker has claimed the requests.
        """
        ...

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        """Returns the new tokens of other responses of each group and, if a query asks for them, the stored responses
        of earlier batches to its prompt.

        Unknown groups, and groups with nothing to return, are left out. The reply contains at most `limit_bytes`, plus
        the earlier responses of one group. Tokens that do not fit are left for the next query, whose positions say
        where to continue. A store that lost its latest writes may have fewer tokens than a query's position: then it
        returns none until it has more.
        """
        ...

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        """Stores the worker's state, metrics and weights. Returns whether the worker has to drain, the fleet spec's
        revision, and the largest token limit of the claiming workers.

        In WORKING_STATES the worker counts in the fair share of the load. The first heartbeat of a boot is evidence
        that the previous boot died with all its leases. A heartbeat of a past boot changes nothing.
        """
        ...

    async def fleet_spec(self) -> FleetSpec:
        """Returns the fleet spec: the weights to serve, the weights transaction, the sleep of engines. It
        is empty before the first write."""
        ...

    async def deregister(self, worker: WorkerId) -> None:
        """Removes the worker and its drain request. Changes nothing if another boot has the worker's name."""
        ...


class DriverStore(Protocol):
    """The verbs that drivers, reports and audits use."""

    @property
    def epoch(self) -> int:
        """As in WorkerStore."""
        ...

    async def now(self) -> float:
        """Returns the time of the job's clock, in seconds."""
        ...

    async def acquire_driver(self, boot: str, held: int = 0) -> int:
        """Makes the caller the job's only driver and returns its fence. A write with the fence of an earlier driver
        then fails.

        `held`: the fence that this boot got before; a store that lost its latest writes may not have it. Raises
        DriverFencedError if a newer driver has taken over since.
        """
        ...

    async def base(self) -> int:
        """Returns the base of this epoch: all numbers issued in it are larger. It is 0 in the job's first epoch."""
        ...

    async def fleet_spec(self) -> FleetSpec:
        """Returns the fleet spec, as the worker's verb of this name."""
        ...

    async def memory(self) -> StoreMemory:
        """Returns the memory that the store uses, and its limit, in bytes."""
        ...

    async def submit(self, groups: list[GroupSpec], driver: int | None = None) -> int:
        """Queues groups, in pieces of limited size, and returns the number of new ones. Groups that exist already are
        skipped.

        `driver`: the fence of a driver. Raises DriverFencedError for an old one. Raises BatchClosedError for a new
        group whose batch is sealed and has as many groups as when it was sealed, or is deleted; NameTakenError if
        another group has its name.
        """
        ...

    async def longest_earlier(self, digests: list[str]) -> list[int]:
        """Returns the length, in tokens, of the longest stored response to each prompt (`digests`: core's
        prompt_digest), 0 if there is none."""
        ...

    async def seal(self, batch: int, driver: int | None = None) -> None:
        """Closes the batch for new groups.

        `driver`: as in `submit`. If the store loses groups of a sealed batch, the batch is open again until it has as
        many groups as when it was sealed.
        """
        ...

    async def progress(self, batch: int) -> BatchProgress:
        """Returns the counts of a batch: its groups, its requests by status, its tokens."""
        ...

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        """Returns up to `limit` entries of a batch's results after `cursor`. Waits up to `wait_seconds` for the first
        one."""
        ...

    async def acknowledge(self, batch: int, cursor: int, driver: int | None = None) -> None:
        """Notes that the reader has stored all entries up to `cursor`, so that their data may be deleted. A cursor
        below the last one changes nothing.

        In a trainer's sealed batch the acknowledged entries are deleted. If they include the end of a group, the
        group's tokens, log-probabilities, chunks and spec are deleted, too, so no further turn is possible. The group's
        view, counts and verdict stay. `driver`: the fence of a driver. Raises DriverFencedError for an old one.
        """
        ...

    async def workers(self) -> list[WorkerStatus]:
        """Returns the last heartbeat of every registered worker, with the number of requests that the worker runs."""
        ...

    async def request_drain(self, worker: str, revision: int | None = None) -> None:
        """Asks the worker of that name to give back its requests and exit.

        `revision`, here and elsewhere: the revision of the fleet spec that the caller acts on. Raises
        FleetSpecMovedError, and changes nothing, if the fleet spec has another revision.
        """
        ...

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        """Takes back expired leases and returns their number. `everything`: all leases, without counting losses; for a
        run whose workers have all ended.

        A request that lost more than `max_losses` leases to deaths, or more than EXPIRY_LIMIT to deaths and expiries
        together, fails.
        """
        ...

    async def end(self, batch: int, event: Event = Event.ABORT, revision: int | None = None) -> int:
        """Ends all unfinished requests of a batch (`event`: ABORT or CANCEL) and keeps their tokens. Returns the number
        of these requests."""
        ...

    async def purge(self, *, forget: bool = False) -> None:
        """Deletes all data of this job, as if it had never been submitted. Fences that were issued before stay invalid.

        `forget`: the job itself is deleted; the data that invalidate its fences expire after a day.
        """
        ...

    async def group_view(self, group: GroupId) -> GroupView:
        """Returns the view of a group: its size, and the facts that are known of its lengths."""
        ...

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        """Returns groups `start` to `start + limit` of a batch, in the order of submission. Groups whose data were
        deleted are left out."""
        ...

    async def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        """Returns all data of one request, with at most `most` of its tokens and log-probabilities, from `start`
        on."""
        ...

    async def lengths(self, requests: list[RequestId]) -> list[int]:
        """Returns the number of stored tokens of each request, 0 if there are none."""
        ...

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        """Returns up to `limit` entries of a batch's journal in order, from number `start` on."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class TrainerStore(DriverStore, Protocol):
    """The further verbs that the API uses for a trainer's batches."""

    async def open_batch(self, batch: OpenBatch) -> tuple[BatchRecord, bool]:
        """Opens a batch under a new number, and returns it and True. If the batch's key was used before, returns that
        batch and False."""
        ...

    async def batches(self) -> list[BatchRecord]:
        """Returns all batches that have data, by number, without the driver's batch 0."""
        ...

    async def batch(self, number: int) -> BatchRecord | None:
        """Returns one batch, also if its data were deleted within the last day; None if there is none."""
        ...

    async def batch_of_key(self, key: str) -> BatchRecord | None:
        """Returns the batch that was opened with this idempotency key, as long as `batch` returns it; None if there is
        none."""
        ...

    async def group_names(self, batch: int, start: int, limit: int) -> list[str]:
        """Returns the names of up to `limit` groups of a batch in the order of submission, from number `start` on."""
        ...

    async def grow(self, spec: GroupSpec, present: int) -> None:
        """Replaces a group's spec by one with more requests, and queues the requests from number `present` on.

        Only for a batch with a single writer. If the group already has these requests, nothing changes. A repeated
        submission is still compared with the group's first content.
        """
        ...

    async def end_groups(self, groups: list[GroupId], event: Event, index: int | None = None) -> int:
        """Ends the unfinished requests of these groups (only number `index`, if given) and returns their number.
        Unknown groups are skipped."""
        ...

    async def carry(self, groups: list[GroupId], batch: int, version: str, stale: tuple[str, ...] = ()) -> int:
        """Moves unfinished groups to another batch, with all tokens and responses (PARKED_BATCH: the groups wait
        there). Returns the number of moved groups.

        In the target batch a group has the id that `GroupId.carried` returns. Its finished responses are reported there
        at once, also in the journal, and its other requests are queued for `version`. In the source batch unfinished
        requests end as carried_over. A group with a token of one of the versions `stale` is not moved: its unfinished
        requests end as aborted, and a parked group is deleted. A batch whose data were deleted receives no groups.
        Idempotent.
        """
        ...

    async def change_version(
        self, batch: int, version: str, stale: tuple[str, ...] = (), revision: int | None = None
    ) -> None:
        """Lets the unfinished requests of the batch continue with `version`. In a group with tokens of one of the
        versions `stale` they end as aborted.

        Present leases become invalid, and the batch gets `version`.
        """
        ...

    async def spec(self, group: GroupId) -> GroupSpec | None:
        """Returns a group's spec, as it was submitted or last grown; None if the group is unknown or its data were
        deleted."""
        ...

    async def go_on(self, request: RequestId, turn: int, tokens: bytes) -> bool:
        """Appends int32 `tokens` to a response whose turn has ended, and queues it again for its next turn. Returns
        True, also for a repeat.

        Raises RequestStateError if the turn has not ended, was followed by other tokens, or max_tokens leaves no room;
        FreedError if the group's data were deleted.
        """
        ...

    async def judge(self, batch: int, verdicts: dict[str, bool]) -> int:
        """Stores for each named group whether it is valid for training; the latest verdict counts. Returns the number
        of groups that exist."""
        ...

    async def verdict(self, group: GroupId) -> bool | None:
        """Returns the latest verdict on a group (True: valid for training); None if there is none."""
        ...

    async def forget(self, batch: int) -> None:
        """Deletes a batch's groups, results and journal in bounded steps. Unfinished requests are cancelled first.

        After an interruption the batch is still in `batches`, marked as forgotten, and a repeat continues the deletion.
        Counts and idempotency key stay for a day.
        """
        ...

    async def load(self) -> QueueLoad:
        """Returns the job's numbers of waiting requests (by weights version) and of running requests, and its workers'
        idle and busy seconds."""
        ...

    async def swap_fleet_spec(self, fleet_spec: FleetSpec) -> bool:
        """Replaces the fleet spec and returns True if the new revision follows the present one. Returns False if
        another writer was first."""
        ...


class Store(WorkerStore, TrainerStore, Protocol):
    """All verbs."""
