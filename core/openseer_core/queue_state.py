"""What the reference queue keeps of each group and request."""

from dataclasses import dataclass, field

from openseer_core.capacity import blocks_for
from openseer_core.chunk import Chunk, ClaimAsk, Result
from openseer_core.group import GroupSpec, GroupView, Priority
from openseer_core.ids import RequestId
from openseer_core.life import FinishReason, State, Status
from openseer_core.sorted_set import SortedSet
from openseer_core.tokens import count_items


@dataclass(slots=True)
class QueuedRequest:
    """One request: its place, its lease, and its tokens so far."""

    rank: float
    lane: str
    state: State = State.QUEUED
    leases: int = 0
    losses: int = 0
    fence: int = 0
    holder: str = ""
    claimed_at: float = 0.0
    start: int = 0
    tokens: bytearray = field(default_factory=bytearray)
    logprobs: bytearray = field(default_factory=bytearray)
    chunks: list[Chunk] = field(default_factory=list[Chunk])

    @property
    def generated(self) -> int:
        """Tokens of the response so far."""
        return count_items(self.tokens)


@dataclass(slots=True)
class QueuedGroup:
    """One group: what was submitted, what is known, and per lane which of its requests wait."""

    spec: GroupSpec
    view: GroupView
    priority: Priority
    requests: list[QueuedRequest]
    waiting: dict[str, SortedSet] = field(default_factory=dict[str, SortedSet])


def blocks_needed(group: QueuedGroup, index: int, ask: ClaimAsk) -> int:
    """KV blocks that the next chunk of a waiting request takes."""
    generated = group.requests[index].generated
    chunk = min(ask.quantum, group.spec.max_tokens - generated)
    prompt = count_items(group.spec.prompt)
    tokens = prompt + min(generated + chunk + ask.margin, group.spec.max_tokens)
    return blocks_for(min(tokens, ask.context_tokens), ask.block_tokens)


def result_of(
    cursor: str,
    request: RequestId,
    spec: GroupSpec,
    state: QueuedRequest,
    now: float,
    *,
    status: Status,
    reason: FinishReason,
    stop_reason: str,
) -> Result:
    """What is reported of a request that has ended."""
    return Result(
        cursor,
        request,
        spec.version,
        status,
        reason,
        stop_reason,
        spec.prompt,
        bytes(state.tokens),
        bytes(state.logprobs),
        spec.metadata,
        spec.sampling,
        spec.enqueued_at,
        now,
        tuple(state.chunks),
    )
