"""What crosses the border between a worker and the store: queries, leases, deltas and replies.

A *chunk* is one lease on one request. Its `fence` belongs to the request and only grows; whoever writes must show it,
so a worker that lost its lease cannot write. Every write names the offset it starts at, so a repeat changes nothing.
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
"""Most expired leases that one call takes back."""
SUSPECT_LOSSES = 2
"""A request that lost so many leases is a suspect: a worker holds one at a time, so that none strikes another."""


def suspect_losses(max_losses: float) -> float:
    """After how many losses a request is a suspect: before one more would be its last, where it may have one."""
    return max(1, min(SUSPECT_LOSSES, max_losses))


@dataclass(frozen=True, slots=True)
class ClaimQuery:
    """How much work a worker has room for.

    `blocks` are free; a chunk takes those that `layout` gives to its prompt, its tokens so far, one quantum and
    `margin` tokens (drafts, and what is generated until the next decision), but never more than `context_tokens`,
    which is the most that a request may have here, prompt and response together. A request that has so many needs no
    blocks: the worker ends it, but passes it over in the lane that all share while a worker that takes more claims.
    `slots`: most requests to hand out. `slack`: how far above the fleet's mean load the worker may go. `number`: grows
    with each claim of a boot, so that a claim whose answer was lost gets the same leases again; 0: every call leases
    more. `adapters`: further versions that the worker has; the best requests of all of them come first. `pace`: tokens
    per second that a response gains here, 0 if unknown; by it the tail goes to the faster of the workers that are free.
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
        """All versions that the worker takes requests of."""
        return (self.version, *self.adapters)


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on a request, with all that is needed to go on with it. `version`: that it is to be sampled from.
    `appended`: so many of its last tokens a trainer has appended, and no lease has generated any since."""

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
        """Unique among all leases of the job."""
        return f"{self.request}:{self.fence}"

    @property
    def generated(self) -> int:
        """How many tokens the response has so far."""
        return count_items(self.tokens)


@dataclass(frozen=True, slots=True)
class Rescore:
    """New facts of a group and the place they give it, valid only for revision `revision`."""

    view: GroupView
    priority: Priority

    @property
    def revision(self) -> int:
        """The revision that this follows."""
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
        """Of the lease, as Claim.key."""
        return f"{self.request}:{self.fence}"


@dataclass(frozen=True, slots=True)
class Finish:
    """The last delta of a request, how it ended, and the group's new place."""

    delta: Delta
    status: Status
    reason: FinishReason
    stop_reason: str = ""
    rescore: Rescore | None = None


@dataclass(frozen=True, slots=True)
class ExtendReply:
    """Answers in the order of the deltas; `views`: groups whose rescore came too late, as they are now."""

    replies: tuple["Reply", ...]
    views: tuple[GroupView, ...]
    fleet_load: "FleetLoad"


class WriteOutcome(StrEnum):
    """What became of a write."""

    OK = "ok"
    LOST = "lost"
    """The lease is gone: stop generating, write nothing more."""
    GAP = "gap"
    """The store holds fewer tokens than `offset` (it lost its last second): send again from `have`."""
    STALE = "stale"
    """The group has a newer revision: compute the place again from `view`. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to one delta or finish; `have`: tokens in the store; `view`: the group now, where it was asked for."""

    outcome: WriteOutcome
    have: int = 0
    view: GroupView | None = None


FASTER = 1.25
"""So many times as fast a worker has to be for the tail to go there (docs/decisions/0032)."""


@dataclass(frozen=True, slots=True)
class FleetLoad:
    """The load of the fleet: what a worker needs to decide whether to go on or to hand over.

    `best_waiting`: the lowest score waiting in the worker's lanes; `waiting`: requests in them; `mine` and `inflight`:
    leased requests of this worker and of all; `workers`: how many claim that take requests as long as it does.
    `free_pace`: tokens per second of a response at the fastest of these, beside itself, that has found nothing more to
    claim; 0 where there is none or none has told.
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
        """Whether no more waits than one worker's share."""
        return self.waiting <= self.fair_share

    def is_faster_free(self, pace: float) -> bool:
        """Whether in the tail a worker is free where responses grow much faster than by `pace`, in tokens per second.

        False where either is unknown, which is 0.
        """
        return 0.0 < pace * FASTER < self.free_pace and self.is_tail

    def is_slower_free(self, pace: float) -> bool:
        """Whether in the tail others are free, but responses grow much more slowly at all of them; as above."""
        return 0.0 < self.free_pace * FASTER < pace and self.is_tail

    def may_claim(self, query: ClaimQuery) -> int:
        """How many more requests the worker may lease in the lane that all share."""
        if self.is_faster_free(query.pace):
            return 0
        return self.waiting if self.is_slower_free(query.pace) else self.fair_share + query.slack - self.mine


@dataclass(frozen=True, slots=True)
class Chunk:
    """One past lease: who generated tokens `start` to `end`, when (seconds, store's clock), and how it ended.

    `version`: of the weights. Tokens that a trainer appended are a chunk of event APPEND without a worker.
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
    """A finished turn of a request as the results stream gives it. `cursor` orders what a batch's stream holds and is
    what one acknowledges; `version`: the batch's when it was read, the chunks tell which ones sampled."""

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
        """The stop that ended it, or why it failed; "" where there is no more to say than `reason`."""
        if self.stop_reason or self.status is not Status.INFRA_FAILED:
            return self.stop_reason
        lost = sum(chunk.event in (Event.REAP, Event.FAIL) for chunk in self.chunks)
        return f"losses of its worker: found {lost}, allowed: as spec.failurePolicy.requestRetries says"


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
    """Counts of one batch. `tokens`: generated or scored so far, of all its requests; `longest`: its longest whole
    response; `ok_tokens`: of all whole responses; `closed_tokens`: of all requests that have a result.
    `open_known`: requests without a result of which the groups' lengths are known; `open_expected`: the tokens that
    these are expected to have at their end (length_estimate.expected_of).

    `groups_*`: ended; of these whole (every response ok); carried over; `valid`, `invalid`: by the trainer's verdict.
    `entries`: cursor of the latest entry of its results stream.
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

    @property
    def closed(self) -> int:
        """Requests that have a result."""
        return self.ok + self.aborted + self.infra_failed + self.carried_over

    @property
    def complete(self) -> bool:
        """Whether nothing more will come."""
        return self.sealed and self.closed == self.requests

    def to_json(self) -> str:
        """The termination message of a driver that has finished: its reader needs no store."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "BatchProgress | None":
        """The counts in a driver's termination message; None when it holds something else."""
        try:
            return BatchProgress(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """Everything the store holds of one request (for audits and detail views). `holder`: "name#boot" of who has or had
    it; `reason`: why its latest turn ended, "" before any did."""

    request: RequestId
    state: State
    fence: int
    tokens: bytes
    logprobs: bytes
    chunks: tuple[Chunk, ...]
    turn: int = 0
    holder: str = ""
    reason: str = ""
