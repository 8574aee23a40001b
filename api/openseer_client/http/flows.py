"""Procedures of several calls, as generators that yield the next call. The two clients make the calls.

A flow yields calls and pauses, receives the results, and returns its outcome. A stream also yields values, as Emit. So
each procedure exists once, for the sync and the async client, and can be tested without a network.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from openseer_client.errors import FleetError, TooLargeError, WeightsError
from openseer_client.http import calls
from openseer_client.http.calls import Call, ask
from openseer_core.weights.publish import Publish
from openseer_core.wire.batches import Batch, Group, UploadReceipt
from openseer_core.wire.fleet import Acquire, FleetState, Release
from openseer_core.wire.weights import Transaction, Weights

T = TypeVar("T")

PIECE_GROUPS = 512
"""Limit of groups in one call of an upload."""
PIECE_BYTES = 2 * 2**20
"""Approximate limit of one call of an upload, in bytes: the group that reaches it is the last one of the call."""
POLL_SECONDS = 20.0
"""Longest wait of one long poll, in seconds."""
MARGIN_SECONDS = 60.0
"""Time that the client waits beyond a transaction's own deadlines, in seconds."""
_BREATH = 0.1
"""Pause after a long poll without a change, in seconds."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """A value for the consumer of a stream."""

    value: T


@dataclass(frozen=True, slots=True)
class End(Generic[T]):
    """The outcome of a generator that has ended."""

    value: T


Flow = Generator[Call[Any] | Pause, Any, T]
Stream = Generator[Call[Any] | Pause | Emit[T], Any, None]
Clock = Callable[[], float]


def advance(generator: Generator[Any, Any, Any], answer: Any = None, error: BaseException | None = None) -> Any:
    """Sends an answer or an error into a generator (None to begin); returns its next step, or End with the outcome.

    End replaces StopIteration, which a coroutine may not raise.
    """
    try:
        return generator.send(answer) if error is None else generator.throw(error)
    except StopIteration as end:
        return End(end.value)


def _size(group: Group) -> int:
    """Returns the approximate size of a group in an upload, in bytes."""
    prompt = group.prompt_token_ids
    return 7 * len(prompt) if prompt is not None else 64 + len(group.prompt or "") + len(str(group.messages or ""))


def pieces(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Yields groups in lists of at most PIECE_GROUPS and about PIECE_BYTES.
    Reads `groups` only up to the yielded list."""
    piece: list[Group] = []
    size = 0
    for group in groups:
        piece.append(group)
        size += _size(group)
        if len(piece) >= PIECE_GROUPS or size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def submit(batch: int, groups: Iterable[Group]) -> Flow[UploadReceipt]:
    """Uploads groups piece by piece; returns the sums of the receipts."""
    accepted = present = 0
    for piece in pieces(groups):
        receipt = yield from _upload(batch, piece)
        accepted += receipt.accepted
        present += receipt.present
    return UploadReceipt(accepted=accepted, present=present)


def _upload(batch: int, piece: list[Group]) -> Flow[UploadReceipt]:
    try:
        return (yield from ask(calls.upload(batch, piece)))
    except TooLargeError:
        if len(piece) == 1:
            raise
    # The refused call may have queued some of these groups; they are not queued twice.
    half = len(piece) // 2
    first = yield from _upload(batch, piece[:half])
    second = yield from _upload(batch, piece[half:])
    return UploadReceipt(accepted=first.accepted + second.accepted, present=first.present + second.present)


def top_up(batch: Batch, supply: Iterator[Group]) -> Flow[Batch]:
    """Submits as many groups as the batch still needs; seals it if its target is met, or the supply has ended."""
    while batch.state == "open" and not batch.target_met and batch.wanted > 0:
        groups = list(islice(supply, batch.wanted))
        if not groups:
            return (yield from ask(calls.seal(batch.id)))
        yield from submit(batch.id, groups)
        batch = yield from ask(calls.status(batch.id))
    if batch.state == "open" and batch.target_met:
        batch = yield from ask(calls.seal(batch.id))
    return batch


def publish(what: Publish, clock: Clock, progress: Callable[[Transaction], None] | None) -> Flow[Transaction]:
    """Publishes weights and waits for the end of the transaction.
    Raises WeightsError if it fails or exceeds its time."""
    transaction = yield from ask(calls.publish(what))
    give_up = clock() + _longest(what)
    revision: int | None = None
    while True:
        if progress is not None:
            progress(transaction)
        if transaction.phase == "done":
            return transaction
        if transaction.phase == "failed":
            raise WeightsError(transaction, "not published")
        if clock() > give_up:
            raise WeightsError(transaction, f"no end after {_longest(what):.0f} s")
        now = yield from ask(calls.weights(revision, POLL_SECONDS))
        transaction = _after(transaction, now)
        if now.revision == revision:
            yield Pause(_BREATH)
        revision = now.revision


def _after(transaction: Transaction, now: Weights) -> Transaction:
    """Returns the present state of a transaction; if another one has begun since, its end. Raises WeightsError if
    another transaction has replaced it."""
    if now.transaction is not None and now.transaction.id == transaction.id:
        return now.transaction
    published = now.versions
    if transaction.adapter:
        published = [version for one in now.adapters if one.name == transaction.adapter for version in one.versions]
    if transaction.version in published:
        return transaction.model_copy(update={"phase": "done", "waiting_for": []})
    raise WeightsError(transaction, "another transaction has taken its place")


def _longest(what: Publish) -> float:
    limits = what.deadlines
    # Besides the retries: the first load, and the load of the old version if the transaction fails.
    return limits.prefetch + limits.quiesce + limits.load * (what.retries + 2) + MARGIN_SECONDS


def release(what: Release, clock: Clock, patience: float) -> Flow[FleetState]:
    """Requests the GPUs and waits until all workers have released them. Raises FleetError after `patience` seconds."""
    state = yield from ask(calls.release(what))
    return (yield from _until(state, "released", clock, patience))


def acquire(what: Acquire, clock: Clock, patience: float) -> Flow[FleetState]:
    """Gives the GPUs back and waits until the workers are awake, wholly or in the requested parts.

    Raises FleetError after `patience` seconds.
    """
    state = yield from ask(calls.acquire(what))
    return (yield from _until(state, "awake" if state.mode is None else "released", clock, patience))


def _until(state: FleetState, wanted: str, clock: Clock, patience: float) -> Flow[FleetState]:
    give_up = clock() + patience
    while state.state != wanted:
        if clock() > give_up:
            waiting = ", ".join(state.waiting_for) or "no worker"
            raise FleetError(
                f"the fleet is {state.state} after {patience:.0f} s, wanted: {wanted}; it waits for: {waiting}"
            )
        seen = state
        state = yield from ask(calls.fleet(min(POLL_SECONDS, max(0.0, give_up - clock()))))
        if state == seen:
            yield Pause(_BREATH)
    return state
