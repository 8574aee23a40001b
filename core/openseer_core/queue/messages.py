"""The messages between a worker and the store: queries, leases, deltas and replies.

A *chunk* is one lease on one request, with the tokens generated under it. Its `fence` belongs to the request and only
grows; every write carries it, so a worker that lost its lease cannot write. Every write names the offset of its first
token, so a repeat is harmless.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from openseer_core.ids import RequestId
from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.kv_blocks import KvLayout
from openseer_core.queue.states import Event, FinishReason, State, Status
from openseer_core.tokens import count_items

REAP_LIMIT = 64
"""Limit of expired leases that one call takes back."""
SUSPECT_LOSSES = 2
"""Losses after which a request is a suspect. A worker holds one suspect at a time, so a request that crashes engines
cannot take a second suspect down with it."""


def suspect_losses(max_losses: float) -> float:
    """Losses after which a request is a suspect: SUSPECT_LOSSES, or `max_losses` if that is smaller; at least 1."""
    return max(1, min(SUSPECT_LOSSES, max_losses))


@dataclass(frozen=True, slots=True)
class ClaimQuery:
    """The capacity of a worker that claims.

    `blocks` are free KV blocks. A chunk takes the blocks that `layout` gives for its prompt, its tokens so far, one
    quantum and `margin` tokens (drafts, and tokens generated until the next decision), but for at most `context_tokens`
    tokens: the limit of prompt and response together at this worker. A request at that limit needs no blocks, because
    the worker ends it; in the shared lane the worker skips it while a worker with a larger limit claims. `slots`: limit
    of requests to lease. `slack`: number of requests above its fair share (FleetLoad.fair_share) that the worker may
    lease. `number`: grows with each claim of a boot, so that a claim whose reply was lost gets the same leases again;
    0: every call leases more. `adapters`: further versions that the worker has loaded; requests of all versions compete
    by score. `pace`: tokens per second of a response here, 0 if unknown; at the end of the queue (FleetLoad.is_tail) it
    decides which of the free workers gets a request.
    """

    version: str
    lanes: tuple[str, ...]
    slots: int
    blocks: int
    layout: KvLayout
    quantum: int
    context_tokens: int
    margin: int = 0
    slack: int = 1
    lease_seconds: float = 10.0
    max_losses: int = 3
    number: int = 0
    adapters: tuple[str, ...] = ()
    pace: float = 0.0

    @property
    def versions(self) -> tuple[str, ...]:
        """All versions whose requests the worker takes."""
        return (self.version, *self.adapters)


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on a request, with all data needed to continue it. `version`: the version to sample from.
    `appended`: number of trailing tokens that the trainer appended and after which nothing has been generated."""

    request: RequestId
    fence: int
    prompt: bytes
    tokens: bytes
    max_tokens: int
    bias: float
    true_length: int
    sampling: str
    priority: Priority
    view: GroupView
    seed: int | None = None
    version: str = ""
    appended: int = 0

    @property
    def key(self) -> str:
        """The id of the lease, unique within the job."""
        return f"{self.request}:{self.fence}"

    @property
    def generated(self) -> int:
        """The number of tokens that the response has so far."""
        return count_items(self.tokens)


@dataclass(frozen=True, slots=True)
class Rescore:
    """New facts of a group and its new priority, valid only if the group still has revision `revision`."""

    view: GroupView
    priority: Priority

    @property
    def revision(self) -> int:
        """The revision that this rescore was computed from."""
        return self.view.revision - 1


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of a leased request from `offset` on: int32 ids, and float32 log-probabilities (or none)."""

    request: RequestId
    fence: int
    offset: int
    tokens: bytes = b""
    logprobs: bytes = b""

    @property
    def key(self) -> str:
        """The id of the lease, as Claim.key."""
        return f"{self.request}:{self.fence}"


@dataclass(frozen=True, slots=True)
class Finish:
    """The last delta of a request, the reason of its end, and the group's new priority."""

    delta: Delta
    status: Status
    reason: FinishReason
    stop_reason: str = ""
    rescore: Rescore | None = None


@dataclass(frozen=True, slots=True)
class ExtendReply:
    """Replies in the order of the deltas; `views`: the present view of each group whose rescore came too late."""

    replies: tuple["Reply", ...]
    views: tuple[GroupView, ...]
    fleet_load: "FleetLoad"


class WriteOutcome(StrEnum):
    """The outcome of a write."""

    OK = "ok"
    LOST = "lost"
    """The lease has ended: stop generating, write nothing more."""
    GAP = "gap"
    """The store holds fewer tokens than `offset` (it lost its last second): send again from `have`."""
    STALE = "stale"
    """The group has a newer revision: compute the rescore again from `view`. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to one delta or finish; `have`: number of tokens in the store; `view`: the group's, for a finish."""

    outcome: WriteOutcome
    have: int = 0
    view: GroupView | None = None


FASTER = 1.25
"""Ratio of paces from which a worker counts as faster: at the end of the queue requests move to it
(docs/decisions/0032)."""


@dataclass(frozen=True, slots=True)
class FleetLoad:
    """The load of the fleet: the input of a worker's decision to continue a request or to give it back.

    `best_waiting`: the lowest score waiting in the worker's lanes; `waiting`: requests in them; `mine` and `inflight`:
    leased requests of this worker and of all workers; `workers`: number of claiming workers whose token limit per
    request is at least this worker's. `free_pace`: tokens per second of a response at the fastest other free worker
    (last claim empty) with at least this token limit; 0 where there is none or its pace is unknown.
    """

    waiting: int = 0
    best_waiting: float = float("inf")
    mine: int = 0
    inflight: int = 0
    workers: int = 1
    free_pace: float = 0.0

    @property
    def fair_share(self) -> int:
        """Requests in flight per worker once all that wait are handed out evenly (at least one)."""
        return max(1, -(-(self.inflight + self.waiting) // max(1, self.workers)))

    @property
    def is_tail(self) -> bool:
        """Whether this is the end of the queue: at most one worker's fair share of requests waits."""
        return self.waiting <= self.fair_share

    def is_faster_free(self, pace: float) -> bool:
        """Whether, at the end of the queue, a free worker is more than FASTER times as fast as `pace`, in tokens per
        second of a response. False where either pace is unknown (0).
        """
        return 0.0 < pace * FASTER < self.free_pace and self.is_tail

    def is_slower_free(self, pace: float) -> bool:
        """Whether, at the end of the queue, `pace` is more than FASTER times that of the fastest other free worker.
        False where either pace is unknown (0).
        """
        return 0.0 < self.free_pace * FASTER < pace and self.is_tail

    def may_claim(self, query: ClaimQuery) -> int:
        """The number of further requests that the worker may lease in the shared lane."""
        if self.is_faster_free(query.pace):
            return 0
        return self.waiting if self.is_slower_free(query.pace) else self.fair_share + query.slack - self.mine


@dataclass(frozen=True, slots=True)
class Chunk:
    """The record of a chunk: its worker, its tokens `start` to `end`, its times (seconds, store's clock), and the
    `event` that ended it.

    `version`: of the weights. Tokens that a trainer appended have a record of event APPEND without a worker.
    """

    worker: str
    fence: int
    start: int
    end: int
    claimed_at: float
    ended_at: float
    event: str
    version: str = ""


APPEND = "append"


@dataclass(frozen=True, slots=True)
class Result:
    """A finished turn of a request in the results stream. `cursor`: number of the entry, by which it is acknowledged.
    `version`: of the batch when the result was read; the chunks name the versions that sampled the tokens."""

    cursor: int
    request: RequestId
    version: str
    status: Status
    reason: FinishReason
    stop_reason: str
    prompt: bytes
    tokens: bytes
    logprobs: bytes
    metadata: str
    sampling: str
    enqueued_at: float
    finished_at: float
    chunks: tuple[Chunk, ...]
    turn: int = 0

    @property
    def ended_by(self) -> str:
        """The stop that ended it, or the cause of its failure; "" where `reason` says all."""
        if self.stop_reason or self.status is not Status.INFRA_FAILED:
            return self.stop_reason
        lost = sum(chunk.event in (Event.REAP, Event.FAIL) for chunk in self.chunks)
        return f"losses of its worker: found {lost}, allowed: spec.failurePolicy.requestRetries"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One event of a job's life; `length`: tokens of the request when it happened."""

    at: float
    event: str
    request: str
    worker: str
    fence: int
    length: int


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Counts of one batch; `sealed`: it takes no further groups.

    Requests with a result, by status: `ok`, `aborted`, `infra_failed`, `carried_over`.
    Tokens: `tokens` generated or scored so far, over all requests; `carried_tokens`: of these, brought by groups from
    other batches; `ok_tokens`: of responses with status ok; `closed_tokens`: of all requests with a result; `longest`:
    of the longest response with status ok.
    Requests without a result: `open_known`: those whose groups' lengths are known; `open_expected`: the tokens that
    these are expected to have at their end (length_estimate.expected_of).
    Groups: `groups_ended`; of these `groups_whole` (every response ok) and `groups_carried` (a request carried over);
    `groups_stale`: not carried over into this batch, because of tokens of versions that were too old.
    Groups by the trainer's verdict: `valid`, `invalid`.
    Results stream: `entries`, the cursor of its latest entry.
    """

    groups: int = 0
    requests: int = 0
    ok: int = 0
    aborted: int = 0
    infra_failed: int = 0
    tokens: int = 0
    sealed: bool = False
    carried_over: int = 0
    longest: int = 0
    groups_ended: int = 0
    groups_whole: int = 0
    groups_carried: int = 0
    groups_stale: int = 0
    valid: int = 0
    invalid: int = 0
    entries: int = 0
    ok_tokens: int = 0
    closed_tokens: int = 0
    open_known: int = 0
    open_expected: int = 0
    carried_tokens: int = 0

    @property
    def own_tokens(self) -> int:
        """Tokens generated or scored in this batch: a sum over batches counts each token once."""
        return self.tokens - self.carried_tokens

    @property
    def closed(self) -> int:
        """Number of requests that have a result."""
        return self.ok + self.aborted + self.infra_failed + self.carried_over

    @property
    def complete(self) -> bool:
        """Whether the stream of results is complete."""
        return self.sealed and self.closed == self.requests

    def to_json(self) -> str:
        """JSON for the termination message of a driver that has finished: its reader needs no store."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "BatchProgress | None":
        """The counts in a driver's termination message; None if it is not one of these."""
        try:
            return BatchProgress(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """All data of one request in the store, for audits and detail views. `holder`: "name#boot" of its present or last
    worker; `reason`: the reason of its latest turn's end, "" before the first."""

    request: RequestId
    state: State
    fence: int
    tokens: bytes
    logprobs: bytes
    chunks: tuple[Chunk, ...]
    turn: int = 0
    holder: str = ""
    reason: str = ""
