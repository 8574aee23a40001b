"""The rules of an audit, as pure functions: checks of the journal, of one result, and of its stored record."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from math import nan

from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.numbers import NUMBERS_PER_MILLISECOND
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.messages import JournalEntry, RequestRecord
from openseer_core.queue.states import TRANSITIONS, Event, FinishReason, State, Status
from openseer_core.token_scores import likeliest, own_scores
from openseer_core.tokens import count_items, pack_logprobs, pack_tokens, readable_logprobs, unpack_tokens
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_driver.run_lines import ChunkLine, ResultLine

_DIGEST_BYTES = 16
REASONS = {  # finish reasons that a result of each status may have
    Status.OK: frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.CONTEXT_FULL}),
    Status.ABORTED: frozenset({FinishReason.ABORTED, FinishReason.CANCELLED}),
    Status.CARRIED_OVER: frozenset({FinishReason.CARRIED_OVER}),
    Status.INFRA_FAILED: frozenset({FinishReason.INFRA_FAILED}),
}
STATES = {  # states that a request with a result of each status may have
    Status.OK: frozenset({State.DONE}),
    Status.ABORTED: frozenset({State.ABORTED, State.CANCELLED}),
    Status.CARRIED_OVER: frozenset({State.CARRIED}),
    Status.INFRA_FAILED: frozenset({State.FAILED}),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken guarantee. `kind` is one of: missing, doubled, unknown, count, prompt, version, tokens, logprobs,
    chunks, finish, holder, transition, length, fence, epoch, cursor, digest. `request`: a request, batch or worker."""

    kind: str
    request: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.request}: found {self.found}, expected {self.expected}"


@dataclass(frozen=True, slots=True)
class SubmittedGroup:
    """The part of a submitted group that the audit compares with the group's results."""

    size: int
    version: str
    prompt: bytes
    """Digest of the prompt's tokens: the prompts of a million groups do not fit into memory."""
    prompt_tokens: int
    limits: tuple[int, ...]
    """Largest length of each response, in tokens: max_tokens, the forced length of a study, or the number of scored
    tokens."""


def submitted_group(spec: GroupSpec) -> SubmittedGroup:
    """Makes the SubmittedGroup of a group."""
    sampling, limit = parse_sampling(spec.sampling), spec.max_tokens
    if sampling.score_from is not None:
        limit = count_items(spec.prompt) - sampling.score_from
    limits = spec.lengths if spec.lengths and sampling.force_lengths else (limit,) * spec.size
    return SubmittedGroup(spec.size, spec.version, _digest(spec.prompt), count_items(spec.prompt), limits)


def _digest(prompt: bytes) -> bytes:
    return blake2b(prompt, digest_size=_DIGEST_BYTES).digest()


@dataclass(slots=True)
class Life:
    """A request after the journal's events so far: its state, its last claim, and its length at the last event."""

    state: State = State.QUEUED
    fence: int = 0
    worker: str = ""
    length: int = 0
    ends: tuple[int, ...] = ()
    """Fences of the leases that completed the request."""


class JournalCheck:
    """Replays the journal in order; keeps one small entry per request.

    `events`: number of events. `epochs`: epochs of the store with a claim. `lost_ends`: number of leases without an end
    whose request was claimed again in a later epoch.
    """

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.events = 0
        self.epochs: set[int] = set()
        self.lost_ends = 0
        self._running: dict[str, int] = {}
        """Latest epoch of each batch, because the journals of several batches are read one after the other."""

    def take(self, entry: JournalEntry) -> Iterator[Violation]:
        """Adds the next event; yields its violations."""
        self.events += 1
        life = self.lives.setdefault(entry.request, Life())
        if entry.event == Event.CLAIM:
            yield from self._claim(life, entry)
        elif life.fence:
            yield from _check_holder(life, entry)
        yield from _lengths(life, entry)
        life.length = entry.length
        after = _after(life.state, entry.event)
        if after is None:
            allowed = ", ".join(event for state, event in TRANSITIONS if state is life.state) or "nothing more"
            yield Violation("transition", entry.request, f"{entry.event} while {life.state}", allowed)
        else:
            life.state = after
            if after is State.DONE:
                life.ends = (*life.ends, entry.fence)

    def _claim(self, life: Life, entry: JournalEntry) -> Iterator[Violation]:
        if entry.fence <= life.fence:
            yield Violation("fence", entry.request, f"fence {entry.fence} at a claim", f"more than {life.fence}")
        batch, epoch = entry.request.partition("/")[0], epoch_of(entry.fence)
        running = self._running.get(batch, 0)
        if epoch < running:
            found = f"fence {entry.fence} of epoch {epoch} at a claim"
            yield Violation("epoch", entry.request, found, f"epoch {running}, which had begun, or a later one")
        self._running[batch] = max(epoch, running)
        self.epochs.add(epoch)
        if life.state is State.LEASED and epoch > epoch_of(life.fence):
            # The store was killed and lost the write that ended the earlier lease.
            self.lost_ends += 1
            life.state, life.length = State.QUEUED, entry.length
        life.fence, life.worker = entry.fence, entry.worker


def check_result(line: ResultLine, submitted: SubmittedGroup) -> Iterator[Violation]:
    """Checks one result without the store: it must match the submitted group and be complete."""
    name = str(line.request)
    if line.weights_version != submitted.version:
        yield Violation("version", name, repr(line.weights_version), repr(submitted.version))
    if _digest(pack_tokens(line.prompt_token_ids)) != submitted.prompt:
        found, expected = (
            f"{len(line.prompt_token_ids)} prompt tokens",
            f"the {submitted.prompt_tokens} submitted",
        )
        yield Violation("prompt", name, found, expected)
    if line.logprobs is not None and len(line.logprobs) != len(line.token_ids):
        found = f"{len(line.logprobs)} log-probabilities"
        yield Violation("logprobs", name, found, f"one for each of the {len(line.token_ids)} tokens")
    yield from _chunks(name, line)
    yield from _finish(name, line, submitted)


def is_reissued(line: ResultLine, record: RequestRecord, life: Life) -> bool:
    """Whether the store lost the result after it was written, and has the request's end from a later epoch.

    The first written line is kept, so it cannot be compared with the store's record. If the journal has the end of the
    line's last lease, the store lost nothing.
    """
    fence = line.chunks[-1].fence if line.chunks else -1
    return 0 <= epoch_of(fence) < epoch_of(record.fence) and fence not in life.ends


def check_stored(line: ResultLine, record: RequestRecord, life: Life) -> Iterator[Violation]:
    """Compares one result with the store's record and the journal."""
    name = str(line.request)
    yield from _tokens(name, line, record)
    yield from _logprobs(name, line, record)
    reported = [(chunk.worker, chunk.fence, chunk.start, chunk.end, chunk.event) for chunk in line.chunks]
    stored = [(chunk.worker, chunk.fence, chunk.start, chunk.end, chunk.event) for chunk in record.chunks]
    if reported != stored:
        yield Violation("chunks", name, f"{len(reported)} chunks that differ", f"the {len(stored)} of the store")
    states = next((states for status, states in STATES.items() if status == line.status), frozenset[State]())
    for where, is_state in (("store", record.state), ("journal", life.state)):
        if states and is_state not in states:
            expected = " or ".join(sorted(states))
            yield Violation("finish", name, f"status {line.status} while {is_state} in the {where}", expected)
    yield from _holder(name, line, record, life)


def epoch_of(fence: int) -> int:
    """The epoch of the store that issued a fence. Assumes that a request has fewer than NUMBERS_PER_MILLISECOND leases
    in one epoch."""
    return fence // NUMBERS_PER_MILLISECOND


def check_weights(fleet_spec: FleetSpec, workers: Iterable[WorkerStatus]) -> Iterator[Violation]:
    """Checks that all workers with the same version report the same digest of its files: the fleet spec's digest, if it
    has one."""
    first: dict[tuple[str, int], tuple[str, str]] = {}
    if fleet_spec.source is not None and fleet_spec.source.digest is not None:
        first[fleet_spec.version, fleet_spec.publisher] = (fleet_spec.source.digest, "as in the fleet spec")
    for worker in workers:
        weights = worker.heartbeat.weights
        if weights is None or not weights.loaded:
            continue
        mine = (weights.loaded, f"as {worker.name} has loaded")
        digest, whose = first.setdefault((weights.version, weights.publisher), mine)
        if digest != weights.loaded:
            found = f"weights {weights.version} of digest {weights.loaded}"
            yield Violation("digest", worker.name, found, f"{digest}, {whose}")


# ---- the journal


def _after(state: State, event: str) -> State | None:
    return next((to for (source, name), to in TRANSITIONS.items() if source is state and name == event), None)


def _check_holder(life: Life, entry: JournalEntry) -> Iterator[Violation]:
    if (entry.worker, entry.fence) != (life.worker, life.fence):
        found = f"{entry.event} by {entry.worker} with fence {entry.fence}"
        yield Violation("holder", entry.request, found, f"{life.worker} with fence {life.fence}, the last claim")


def _lengths(life: Life, entry: JournalEntry) -> Iterator[Violation]:
    # Tokens are generated only under a lease, so a claim must begin at the length at which the last lease ended.
    if entry.event == Event.CLAIM and entry.length != life.length:
        found = f"a claim at {entry.length} tokens"
        yield Violation("length", entry.request, found, f"{life.length}, where the last lease ended")
    elif entry.length < life.length:
        found = f"{entry.event} at {entry.length} tokens"
        yield Violation("length", entry.request, found, f"at least {life.length}, as at the event before")


# ---- one result


def _tokens(name: str, line: ResultLine, record: RequestRecord) -> Iterator[Violation]:
    if pack_tokens(line.token_ids) != record.tokens:
        stored = unpack_tokens(record.tokens)
        position = next(
            (position for position, (a, b) in enumerate(zip(line.token_ids, stored, strict=False)) if a != b),
            min(len(stored), len(line.token_ids)),
        )
        found = f"{len(line.token_ids)} tokens that differ from position {position} on"
        yield Violation("tokens", name, found, f"the {len(stored)} of the store")


def _logprobs(name: str, line: ResultLine, record: RequestRecord) -> Iterator[Violation]:
    if line.logprobs is None:
        if record.logprobs:
            yield Violation("logprobs", name, "none", f"the {count_items(record.logprobs)} of the store")
        return
    try:
        own, top = own_scores(record.tokens, record.logprobs), likeliest(record.tokens, record.logprobs)
    except ValueError as error:
        yield Violation("logprobs", name, f"{len(line.logprobs)} log-probabilities", f"the store has {error}")
        return
    # JSON has null for NaN and infinity, which stores of earlier releases may contain.
    stored = readable_logprobs(own) if None in line.logprobs else None
    same = _nan_for_null(line.logprobs) == (own if stored is None else _nan_for_null(stored))
    if not same:
        found = f"{len(line.logprobs)} log-probabilities that differ"
        yield Violation("logprobs", name, found, f"the {count_items(own)} of the store")
    if line.top_logprobs != top:
        yield Violation("logprobs", name, "likeliest tokens that differ", "those of the store")


def _nan_for_null(logprobs: Sequence[float | None]) -> bytes:
    return pack_logprobs(nan if value is None else value for value in logprobs)


def _chunks(name: str, line: ResultLine) -> Iterator[Violation]:
    edges = [0, *(edge for chunk in line.chunks for edge in (chunk.start, chunk.end)), len(line.token_ids)]
    for end, start in list(pairwise(edges))[::2]:
        if start != end:
            what = "a hole" if start > end else "an overlap"
            yield Violation("chunks", name, f"{what} from {min(start, end)} to {max(start, end)}", "none")
    for chunk in line.chunks:
        if chunk.end < chunk.start:
            yield Violation(
                "chunks",
                name,
                f"a chunk that ends before it starts: {_describe(chunk)}",
                "an end at or after its start",
            )
    for before, after in pairwise(line.chunks):
        if after.fence <= before.fence:
            yield Violation("fence", name, f"chunk fence {after.fence}", f"more than {before.fence}, the one before")


def _finish(name: str, line: ResultLine, submitted: SubmittedGroup) -> Iterator[Violation]:
    reasons = next((reasons for status, reasons in REASONS.items() if status == line.status), frozenset[FinishReason]())
    if not any(reason == line.finish_reason for reason in reasons):
        expected = " or ".join(sorted(reasons)) or "status ok, aborted, infra_failed or carried_over"
        yield Violation("finish", name, f"status {line.status} with reason {line.finish_reason}", expected)
    length = len(line.token_ids)
    if line.status == Status.OK and length == 0:
        yield Violation("finish", name, "status ok without a token", "at least one")
    limit = submitted.limits[line.index]
    if length > limit or (line.finish_reason == FinishReason.LENGTH and length != limit):
        yield Violation("finish", name, f"{length} tokens, reason {line.finish_reason}", f"limit {limit}")


def _holder(name: str, line: ResultLine, record: RequestRecord, life: Life) -> Iterator[Violation]:
    last = line.chunks[-1] if line.chunks else None
    found = (last.worker, last.fence) if last else ("", 0)
    if found != (life.worker, life.fence):
        expected = f"{life.worker or 'nobody'} with fence {life.fence}, the last claim"
        yield Violation("holder", name, f"a result by {found[0] or 'nobody'} with fence {found[1]}", expected)
    if record.fence != life.fence:
        yield Violation("fence", name, f"fence {record.fence} in the store", f"{life.fence}, as in the journal")


def _describe(chunk: ChunkLine) -> str:
    return f"tokens {chunk.start} to {chunk.end} by {chunk.worker}"
