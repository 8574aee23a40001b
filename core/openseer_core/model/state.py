"""What the reference queue keeps of each group and request."""

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

    `expiries`: leases that ended without their holder's word; `losses`: those whose holder is known to have died, less
    the leases that went well since. `suspect`: it is leased as one that may kill its worker. `appended`: where the
    tokens that began its turn start, and how many they are.
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
        """Tokens of the response so far."""
        return count_items(self.tokens)

    def add(self, delta: Delta) -> None:
        """Appends what is new of tokens and scores."""
        known = (self.generated - delta.offset) * ITEM_BYTES
        self.tokens += delta.tokens[known:]
        self.logprobs += delta.logprobs[known * record_items(delta.tokens, delta.logprobs) :]

    def check_repeat(self, appended: bytes, turn: str) -> None:
        """Raises RequestStateError when other tokens than these began its turn; `turn` names the one before."""
        start, count = self.appended
        if bytes(self.tokens[start * ITEM_BYTES :][: count * ITEM_BYTES]) != appended:
            raise RequestStateError(f"{turn} was followed by other tokens")

    def absolve(self) -> None:
        """A lease that went well makes good one that was lost."""
        if self.generated > self.start:
            self.losses = max(0, self.losses - 1)


@dataclass(slots=True)
class QueuedGroup:
    """One group: what was submitted, what is known, and per lane which of its requests wait.

    `endings`: how many of its requests ended how; `version`: of the weights that go on with it; `sizes`: by lane, the
    size (kv_blocks.size_of) of the context of the first that waits; `last_end`: cursor of the last entry that says
    that it has ended; `freed`: see port.DriverStore.acknowledge; `content`: GroupSpec.content of what was submitted.
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
        """Drops what results are made of; that the group was here, and how it ended, stays."""
        self.freed = True
        for request in self.requests:
            request.fence, request.tokens, request.logprobs, request.chunks = 0, bytearray(), bytearray(), []


@dataclass(slots=True)
class QueuedBatch:
    """One batch: its record but for the counts, the counts, its groups' names in order, its stream and its journal."""

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
        """The batch as a trainer sees it."""
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
    """KV blocks that the next chunk of a waiting request takes. One that has no room to go on takes none of a worker
    that ends it, and more than any other has."""
    prompt, generated = count_items(group.spec.prompt), group.requests[index].generated
    context = prompt + generated
    if context >= query.context_tokens:
        return 0 if ends else UNLIMITED
    longest = min(group.spec.max_tokens, query.context_tokens - prompt)
    return Footprint(prompt, generated, generated + query.quantum, longest, query.margin, context).blocks(query.layout)


def claim_of(request: RequestId, group: QueuedGroup) -> Claim:
    """What a worker is told of a request that it has leased."""
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
    """What is reported of a request that has ended."""
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
