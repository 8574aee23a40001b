"""Builders for store tests: a clock, groups, claim queries, deltas and finishes."""

from collections.abc import Sequence
from dataclasses import dataclass

from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.queue.kv_blocks import KvLayout, whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, ExtendReply, Finish, Rescore, Result
from openseer_core.queue.policy import PROBES_FIRST
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_store.port import FIRST_CURSOR, Store

VERSION = "v1"
TOP = 2
"""The number of likeliest tokens in a record, if it has any."""
ANN = WorkerId("ann", "1")
BOB = WorkerId("bob", "1")
NO_PROBE = Priority(base=0.0)
PROBE = Priority(base=0.0, probe=PROBES_FIRST)
FULL = whole(16)


@dataclass
class Clock:
    """A clock that stands still until a test sets it."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def wait(store: Store, clock: Clock, seconds: float) -> None:
    """Advances the clock in steps of 1 s, each followed by a call of the store."""
    end = clock.seconds + seconds
    while clock.seconds < end:
        clock.seconds = min(end, clock.seconds + 1.0)
        await store.now()


def group(
    name: str,
    size: int = 2,
    priority: Priority = NO_PROBE,
    *,
    batch: int = 0,
    ranks: Sequence[float] = (),
    lanes: Sequence[str] = (),
    prompt_tokens: int = 16,
    max_tokens: int = 100,
    version: str = VERSION,
    history: str = "",
    history_size: int = 0,
    longest_earlier: int = 0,
) -> GroupSpec:
    """A group of `size` requests, all in the shared lane by default."""
    size = len(ranks) or len(lanes) or size
    return GroupSpec(
        id=GroupId(batch, name),
        version=version,
        ordinal=0,
        prompt=pack_tokens(range(prompt_tokens)),
        max_tokens=max_tokens,
        biases=tuple(ranks) or (0.0,) * size,
        lanes=tuple(lanes) or (SHARED_LANE,) * size,
        priority=priority,
        enqueued_at=1000.0,
        metadata='{"from": "é"}',
        history=history,
        history_size=history_size,
        longest_earlier=longest_earlier,
    )


def query(
    slots: int = 100,
    *,
    blocks: int = 10_000,
    lanes: tuple[str, ...] = (SHARED_LANE,),
    slack: int = 1000,
    quantum: int = 16,
    context_tokens: int = 1000,
    lease_seconds: float = 10.0,
    max_losses: int = 3,
    version: str = VERSION,
    margin: int = 0,
    number: int = 0,
    layout: KvLayout = FULL,
    adapters: tuple[str, ...] = (),
    pace: float = 0.0,
) -> ClaimQuery:
    """A query with room for nearly every request by default."""
    return ClaimQuery(
        version=version,
        lanes=lanes,
        slots=slots,
        blocks=blocks,
        layout=layout,
        quantum=quantum,
        context_tokens=context_tokens,
        margin=margin,
        slack=slack,
        lease_seconds=lease_seconds,
        max_losses=max_losses,
        number=number,
        adapters=adapters,
        pace=pace,
    )


def tokens(start: int, count: int) -> bytes:
    """`count` packed tokens, each equal to its position."""
    return pack_tokens(range(start, start + count))


def record(place: int, top: int) -> bytes:
    """The scores of one token: its own, and those of the `top` likeliest ones."""
    pairs = (pack_tokens([place + rank]) + pack_logprobs([-place - rank]) for rank in range(top))
    return pack_logprobs([-float(place)]) + (pack_tokens([place + 1]) if top else b"") + b"".join(pairs)


def delta(claim: Claim, count: int, offset: int | None = None) -> Delta:
    """`count` new tokens of a claimed request, after those it had (or from `offset`).

    For requests with an odd index the likeliest tokens are recorded, too.
    """
    at = claim.generated if offset is None else offset
    logprobs = b"".join(record(place, claim.request.index % 2 * TOP) for place in range(at, at + count))
    return Delta(claim.request, claim.fence, at, tokens(at, count), logprobs)


def finish(
    claim: Claim,
    count: int,
    offset: int | None = None,
    rescore: Rescore | None = None,
    status: Status = Status.OK,
) -> Finish:
    """The end of a claimed request after `count` more tokens."""
    reason = FinishReason.STOP if status is Status.OK else FinishReason(status.value)
    return Finish(delta(claim, count, offset), status, reason, "</s>", rescore)


async def extend(store: Store, worker: WorkerId, deltas: list[Delta], rescores: Sequence[Rescore] = ()) -> ExtendReply:
    """An extend with the usual lease."""
    return await store.extend(worker, deltas, list(rescores), lease_seconds=10.0, version=VERSION, lanes=(SHARED_LANE,))


async def results(store: Store, batch: int = 0, cursor: int = FIRST_CURSOR, limit: int = 1000) -> list[Result]:
    """The finished requests of a batch, without the ends of groups."""
    return [entry for entry in await store.results(batch, cursor, limit) if isinstance(entry, Result)]


def names(claims: Sequence[Claim]) -> list[str]:
    """The claimed requests, without their batch."""
    return [str(claim.request).split("/", 1)[1] for claim in claims]


def request(name: str, batch: int = 0) -> RequestId:
    """The request called `group/index`."""
    return RequestId.parse(f"{batch}/{name}")
