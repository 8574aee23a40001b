"""The messages between a worker and the store: queries, leases, deltas and replies.

A *chunk* is one lease on one request, with the tokens generated under it. Each lease has a `fence`, a number that grows
from lease to lease of the request (a fencing token). Every write contains the fence, so a worker that lost its lease
cannot write. Every write of tokens contains the offset of its first token, so a repeat is harmless.
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
EXPIRY_LIMIT = 16
"""Limit of expiries and losses together of one request. After more it fails, even without evidence of a death."""
SUSPECT_LOSSES = 2
"""Losses from which a request is a *suspect*: it may be the cause of the crashes. A worker runs at most one suspect at
a time, so that a crash adds a loss to only one of them."""


def suspect_losses(max_losses: float) -> float:
    """Losses from which a request is a suspect: SUSPECT_LOSSES, or `max_losses` if that is smaller; at least 1."""
    return max(1, min(SUSPECT_LOSSES, max_losses))


@dataclass(frozen=True, slots=True)
class ClaimQuery:
    """The capacity of a worker that claims.

    `version`: the weights version that it has loaded. `lanes`: the lanes that it claims from, in order.
    `slots`: limit of requests to lease. `blocks`: free KV blocks; `layout`: how many blocks a context needs.
    `quantum`, `margin`: a request needs blocks for its prompt, its tokens so far, one quantum and `margin` tokens
    (drafts, and tokens generated until the next decision), but at most for `context_tokens` tokens.
    `context_tokens`: limit of prompt and response together at this worker. A request that has reached it needs no
    blocks: the worker ends it (in the shared lane only if no worker with a larger limit claims; otherwise it skips the
    request).
    `slack`: number of requests above its fair share (FleetLoad.fair_share) that the worker may lease.
    `lease_seconds`: duration of the leases. `max_losses`: limit of the losses of one request.
    `number`: the boot's count of claims. A repeat with the same number returns the same leases, because the first reply
    may have been lost. 0: no such check.
    `adapters`: further versions that the worker has loaded; requests of all versions compete by score.
    `pace`: tokens per second of a response here, 0 if unknown; at the end of the queue (FleetLoad.is_tail) it decides
    which of the free workers gets a request.
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
        """The versions of the requests that the worker claims."""
        return (self.version, *self.adapters)


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on a request, with all data needed to continue it. `version`: the version to sample from.
    `appended`: number of tokens at its end that the trainer appended; no token has been generated after them."""

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
    """New facts of a group and its new priority. The store applies them only if the group still has `revision`."""

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
    """The reply to an `extend`. `replies`: in the order of the deltas; `views`: the present views of the groups that
    have another revision than their rescore (such a rescore changes nothing)."""

    replies: tuple["Reply", ...]
    views: tuple[GroupView, ...]
    fleet_load: "FleetLoad"


class WriteOutcome(StrEnum):
    """The outcome of a write."""

    OK = "ok"
    LOST = "lost"
    """The lease has ended: stop generating, and write no more."""
    GAP = "gap"
    """The store has fewer tokens than `offset` (it lost its last writes): send again from `have`."""
    STALE = "stale"
    """The group has another revision than the rescore: compute it again from `view`. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to one delta or finish. `have`: number of the request's tokens in the store; `view`: the group's view, only
    for a finish."""

    outcome: WriteOutcome
    have: int = 0
    view: GroupView | None = None


FASTER = 1.25
"""A worker counts as faster if its pace is more than FASTER times the other worker's: at the end of the queue requests
move to it (docs/decisions/0032)."""


@dataclass(frozen=True, slots=True)
class FleetLoad:
    """The load of the fleet: the input of a worker's decision to continue a request or to give it back.

    `waiting`: number of waiting requests of the worker's versions in its lanes; `best_waiting`: the lowest score among
    those that are below the worker's token limit, infinite without any; `mine` and `inflight`: leased requests of this
    worker and of all workers; `workers`: number of claiming workers that have at least this worker's token limit per
    request. `free_pace`: tokens per second of a response at the fastest other free worker (last claim empty) that
    serves the same versions and has at least this token limit, of the 8 fastest free workers; 0 if there is none or its
    pace is unknown.
    """

    waiting: int = 0
    best_waiting: float = float("inf")
    mine: int = 0
    inflight: int = 0
    workers: int = 1
    free_pace: float = 0.0

    @property
    def fair_share(self) -> int:
        """(leased + waiting requests) / workers, rounded up; at least 1."""
        return max(1, -(-(self.inflight + self.waiting) // max(1, self.workers)))

    @property
    def is_tail(self) -> bool:
        """Whether this is the end of the queue: at most one worker's fair share of requests waits. (The *tail* of
        docs/GLOSSARY.md is another period.)"""
        return self.waiting <= self.fair_share

    def is_faster_free(self, pace: float) -> bool:
        """Whether, at the end of the queue, a free worker is more than FASTER times as fast as `pace`, in tokens per
        second of a response. False if one of the paces is unknown (0).
        """
        return 0.0 < pace * FASTER < self.free_pace and self.is_tail

    def is_slower_free(self, pace: float) -> bool:
        """Whether, at the end of the queue, `pace` is more than FASTER times that of the fastest other free worker.
        False if one of the paces is unknown (0).
        """
        return 0.0 < self.free_pace * FASTER < pace and self.is_tail

    def may_claim(self, query: ClaimQuery) -> int:
        """The number of further requests that the worker may lease in the shared lane.

        At the end of the queue: 0 if a faster worker is free; all waiting requests if the fastest other free worker is
        slower. Otherwise up to its fair share plus `slack`.
        """
        if self.is_faster_free(query.pace):
            return 0
        return self.waiting if self.is_slower_free(query.pace) else self.fair_share + query.slack - self.mine


@dataclass(frozen=True, slots=True)
class Chunk:
    """The record of a chunk: its worker, its tokens `start` to `end`, its times (seconds, store's clock), and the
    `event` that ended it.

    `version`: the weights version. Tokens that a trainer appended have a record of event APPEND without a worker.
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
    `version`: its group's weights version when the turn ended; `chunks`: with the versions that sampled the tokens.
    """

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
        """The stop string or token that ended it, or the cause of its failure; "" if `reason` is sufficient."""
        if self.stop_reason or self.status is not Status.INFRA_FAILED:
            return self.stop_reason
        # Chunks do not distinguish losses, expiries and leases that a publish ended: their number is an upper bound.
        ends = [chunk.event for chunk in self.chunks]
        taken = sum(event in (Event.REAP, Event.FAIL) for event in ends)
        losses = "losses of its worker: more than spec.failurePolicy.requestRetries"
        # A late report of a death, which fails a waiting request, adds no chunk.
        if taken <= EXPIRY_LIMIT or ends[-1] != Event.FAIL:
            return f"{losses}; leases taken back: {taken}"
        return f"{losses}, or losses and expiries: more than {EXPIRY_LIMIT}; leases taken back: {taken}"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One event of a request, at `at` (seconds of the store's clock). `length`: tokens of the request at that time."""

    at: float
    event: str
    request: str
    worker: str
    fence: int
    length: int


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Counts of one batch. `sealed`: the batch accepts no further groups.

    `ok`, `aborted`, `infra_failed`, `carried_over`: number of requests with a result, by status. `tokens`: tokens of
    all requests, generated or scored; `carried_tokens`: those of them that carried-over groups had before this batch;
    `ok_tokens`: tokens of the responses with status ok, appended ones included; `closed_tokens`: tokens of all requests
    with a result, without appended ones as in `tokens`; `longest`: tokens of the longest response with status ok.
    `open_known`: number of requests without a result that have an estimate; `open_expected`: their expected total
    tokens at their end (length_estimate.expected_of). `groups_ended`: number of groups that have ended; of these
    `groups_whole` (every response ok) and `groups_carried` (a request carried over). `groups_stale`: number of groups
    that were not carried over into this batch, because they have tokens of versions that are too old. `valid`,
    `invalid`: number of groups by the trainer's verdict. `entries`: cursor of the latest entry of the results stream.
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
        """Whether the batch is sealed and each request has a result."""
        return self.sealed and self.closed == self.requests

    def to_json(self) -> str:
        """JSON for the termination message of a finished driver, so that the reader needs no store."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "BatchProgress | None":
        """The counts in a driver's termination message; None if the text contains no counts."""
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
