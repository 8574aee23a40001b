"""The records of the reference queue: requests, groups and batches."""

from collections import Counter
from dataclasses import dataclass, field

from openseer_core.errors import RequestStateError
from openseer_core.ids import RequestId
from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue.batch import BatchRecord, Entry
from openseer_core.queue.group import GroupSpec, GroupView, Priority
from openseer_core.queue.kv_blocks import UNLIMITED, Footprint
from openseer_core.queue.messages import BatchProgress, Chunk, Claim, ClaimQuery, Delta, JournalEntry, Result
from openseer_core.queue.states import FinishReason, State, Status
from openseer_core.token_scores import record_items
from openseer_core.tokens import ITEM_BYTES, count_items


@dataclass(slots=True)
class QueuedRequest:
    """One request: its place, its lease, and its tokens so far.

    `expiries`: number of leases that ended without a write of their holder; `losses`: number of leases that ended by
    the death of their holder, less the later leases that generated tokens and ended well. `suspect`: whether the
    request is leased as a suspect. `appended`: start and number of the tokens that a trainer appended at the start of
    the present turn.
    """

    bias: float
    lane: str
    state: State = State.QUEUED
    leases: int = 0
    losses: int = 0
    expiries: int = 0
    suspect: bool = False
    fence: int = 0
    holder: str = ""
    claimed_at: float = 0.0
    start: int = 0
    tokens: bytearray = field(default_factory=bytearray)
    logprobs: bytearray = field(default_factory=bytearray)
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    turn: int = 0
    appended: tuple[int, int] = (0, 0)
    reason: str = ""
    stop_reason: str = ""
    status: Status | None = None

    @property
    def generated(self) -> int:
        """Number of tokens of the response so far."""
        return count_items(self.tokens)

    def add(self, delta: Delta) -> None:
        """Appends the new tokens and scores of a delta."""
        known = (self.generated - delta.offset) * ITEM_BYTES
        self.tokens += delta.tokens[known:]
        self.logprobs += delta.logprobs[known * record_items(delta.tokens, delta.logprobs) :]

    def check_repeat(self, appended: bytes, turn: str) -> None:
        """Raises RequestStateError if the present turn began with other tokens; `turn` names the previous turn."""
        start, count = self.appended
        if bytes(self.tokens[start * ITEM_BYTES :][: count * ITEM_BYTES]) != appended:
            raise RequestStateError(f"{turn} was continued with other tokens before")

    def absolve(self) -> None:
        """Reduces the losses by one if the ended lease has generated tokens."""
        if self.generated > self.start:
            self.losses = max(0, self.losses - 1)


@dataclass(slots=True)
class QueuedGroup:
    """One group: its spec, its known facts, and its waiting requests per lane.

    `endings`: number of ended requests by status; `version`: the weights version for the group's next tokens; `sizes`:
    by lane, the size class (kv_blocks.size_of) of the first waiting request's context; `last_end`: cursor of the
    group's latest GroupEnd entry; `freed`: whether its data were deleted (port.DriverStore.acknowledge); `content`:
    GroupSpec.content of the submitted spec.
    """

    spec: GroupSpec
    view: GroupView
    priority: Priority
    requests: list[QueuedRequest]
    version: str
    waiting: dict[str, SortedSet] = field(default_factory=dict[str, SortedSet])
    endings: Counter[Status] = field(default_factory=Counter[Status])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    last_end: int = 0
    freed: bool = False
    content: str = ""

    def __post_init__(self) -> None:
        self.content = self.spec.content()

    def free(self) -> None:
        """Deletes the data of the group's results. The group itself and its endings stay."""
        self.freed = True
        for request in self.requests:
            request.fence, request.tokens, request.logprobs, request.chunks = 0, bytearray(), bytearray(), []


@dataclass(slots=True)
class QueuedBatch:
    """One batch: the fields of its record, its counts, the names of its groups in order, its results and its
    journal."""

    number: int
    version: str = ""
    spec: str = "{}"
    key: str = ""
    opened_at: float = 0.0
    started_at: float = 0.0
    tail_at: float = 0.0
    ended_at: float = 0.0
    acknowledged: int = 0
    forgotten: bool = False
    ordinal: int = 0
    swept: int = 0
    takes_parked: bool = False
    progress: BatchProgress = field(default_factory=BatchProgress)
    names: list[str] = field(default_factory=list[str])
    entries: list[Entry] = field(default_factory=list[Entry])
    journal: list[JournalEntry] = field(default_factory=list[JournalEntry])
    verdicts: dict[str, bool] = field(default_factory=dict[str, bool])

    def record(self) -> BatchRecord:
        """The batch's record, which readers get."""
        return BatchRecord(
            self.number,
            self.version,
            self.spec,
            self.progress,
            self.opened_at,
            self.started_at,
            self.tail_at,
            self.ended_at,
            self.acknowledged,
            self.forgotten,
            self.ordinal,
            self.swept,
            self.takes_parked,
        )


def blocks_needed(group: QueuedGroup, index: int, query: ClaimQuery, *, ends: bool) -> int:
    """The number of KV blocks for the next chunk of a waiting request. A request that fills the worker's context needs
    0 blocks if the worker ends such requests (`ends`), else UNLIMITED."""
    prompt, generated = count_items(group.spec.prompt), group.requests[index].generated
    context = prompt + generated
    if context >= query.context_tokens:
        return 0 if ends else UNLIMITED
    longest = min(group.spec.max_tokens, query.context_tokens - prompt)
    return Footprint(prompt, generated, generated + query.quantum, longest, query.margin, context).blocks(query.layout)


def claim_of(request: RequestId, group: QueuedGroup) -> Claim:
    """The claim that a worker gets for a leased request."""
    spec, index = group.spec, request.index
    state = group.requests[index]
    start, added = state.appended
    return Claim(
        request,
        state.fence,
        spec.prompt,
        bytes(state.tokens),
        spec.max_tokens,
        state.bias,
        spec.lengths[index] if spec.lengths else 0,
        spec.sampling,
        group.priority,
        group.view,
        spec.seeds[index] if spec.seeds else None,
        group.version,
        added if state.generated == start + added else 0,
    )


def result_of(
    cursor: int, request: RequestId, group: QueuedGroup, state: QueuedRequest, now: float, status: Status
) -> Result:
    """The result of a request that has ended."""
    spec = group.spec
    return Result(
        cursor,
        request,
        group.version,
        status,
        FinishReason(state.reason),
        state.stop_reason,
        spec.prompt,
        bytes(state.tokens),
        bytes(state.logprobs),
        spec.metadata,
        spec.sampling,
        spec.enqueued_at,
        now,
        tuple(state.chunks),
        state.turn,
    )
