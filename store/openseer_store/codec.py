"""The encoding of calls to Redis: arguments as msgpack, replies in the form that the verbs return."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgspec

from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.batch import BatchRecord, Entry, GroupEnd, QueueLoad
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView, Priority
from openseer_core.queue.messages import (
    BatchProgress,
    Chunk,
    Claim,
    Delta,
    ExtendReply,
    Finish,
    FleetLoad,
    JournalEntry,
    Reply,
    RequestRecord,
    Rescore,
    Result,
    WriteOutcome,
)
from openseer_core.queue.siblings import SiblingQuery, Siblings, SiblingTokens
from openseer_core.queue.states import FinishReason, State, Status
from openseer_core.tokens import count_items
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.replies import read_count, read_seconds

RESULT_FIELDS = 11
"""Number of fields of a result's row; the end of a group has fewer."""

Row = list[Any]
"""An array in a verb's reply, as the header of its script describes it: byte strings, whole numbers, further arrays."""


class SpecRow(msgspec.Struct, array_like=True, frozen=True):
    """A group as clients read it; its id is in the key. `biases` is empty if all are 0, `lanes` if all are shared."""

    version: str
    ordinal: int
    prompt: bytes
    max_tokens: int
    size: int
    biases: tuple[float, ...]
    lanes: tuple[str, ...]
    priority: tuple[float, float, float | None]
    enqueued_at: float
    lengths: tuple[int, ...]
    sampling: str
    metadata: str
    tier: int = 0
    seeds: tuple[int | None, ...] = ()
    history: str = ""
    history_size: int = 0
    longest_earlier: int = 0
    batch_ordinal: int = 0


class InfoRow(msgspec.Struct, array_like=True, frozen=True):
    """A worker's heartbeat."""

    state: str
    metrics: dict[str, float | int | str]
    weights: str = ""
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0


_encoder = msgspec.msgpack.Encoder()
_specs = msgspec.msgpack.Decoder(SpecRow)
_infos = msgspec.msgpack.Decoder(InfoRow)
_chunks = msgspec.msgpack.Decoder(tuple[str, int, int, int, float, float, str, str])
_entries = msgspec.msgpack.Decoder(tuple[float, str, str, str, int, int])
_OUTCOMES = {outcome.value.encode(): outcome for outcome in WriteOutcome}


def pack(value: object) -> bytes:
    """A verb's arguments as msgpack. `value` may not contain bytes: the msgpack library of Redis cannot decode them."""
    return _encoder.encode(value)


# ---- to the store


def group_names(groups: Sequence[GroupId]) -> list[str]:
    """Ids of groups as script arguments."""
    return list(map(str, groups))


def or_false(number: int | None) -> int | bool:
    """An optional number as a script argument: false for None."""
    return False if number is None else number


def pack_spec(spec: GroupSpec) -> bytes:
    """A group in the form that clients read."""
    row = SpecRow(
        version=spec.version,
        ordinal=spec.ordinal,
        prompt=spec.prompt,
        max_tokens=spec.max_tokens,
        size=spec.size,
        biases=spec.biases if any(spec.biases) else (),
        lanes=spec.lanes if any(spec.lanes) else (),
        priority=(spec.priority.base, spec.priority.slope, spec.priority.probe),
        enqueued_at=spec.enqueued_at,
        lengths=spec.lengths,
        sampling=spec.sampling,
        metadata=spec.metadata,
        tier=spec.tier,
        seeds=spec.seeds,
        history=spec.history,
        history_size=spec.history_size,
        longest_earlier=spec.longest_earlier,
        batch_ordinal=spec.batch_ordinal,
    )
    return _encoder.encode(row)


def pack_row(spec: GroupSpec) -> bytes:
    """A group in the form that the scripts use; GROUP in _shared.lua names the fields. Its field `lanes` is false if
    all requests wait in the shared lane, and `biases` if all have bias 0."""
    lanes = any(spec.lanes) and spec.lanes
    biases = any(spec.biases) and spec.biases
    shape = (spec.version, spec.ordinal, spec.size, spec.max_tokens, spec.enqueued_at, count_items(spec.prompt))
    nothing_known = (0, 0, 0, 0)
    nobody_ended = (0, 0, 0, 0)
    position = (*_priority_row(spec.priority), 0, spec.tier)
    earlier = (spec.history or False, spec.history_size, spec.longest_earlier)
    more = (spec.content(), spec.batch_ordinal, False, False, False)
    return _encoder.encode((*shape, lanes, biases, *nothing_known, *position, *nobody_ended, *earlier, *more))


def _priority_row(priority: Priority) -> tuple[float, float, float | bool]:
    return priority.base, priority.slope, False if priority.probe is None else priority.probe


def delta_row(delta: Delta) -> tuple[str, int, int]:
    """A delta without its bytes, which are separate arguments."""
    return str(delta.request), delta.fence, delta.offset


def delta_bytes(deltas: Sequence[Delta]) -> list[bytes]:
    """Tokens and log-probabilities of each delta, alternating."""
    return [part for delta in deltas for part in (delta.tokens, delta.logprobs)]


def rescore_row(rescore: Rescore) -> tuple[object, ...]:
    """A rescore in the form that extend.lua reads."""
    view = rescore.view
    return str(view.id), rescore.revision, view.longest_running, *_priority_row(rescore.priority)


def finish_row(finish: Finish) -> tuple[object, ...]:
    """A finish in the form that complete.lua reads."""
    rescore = finish.rescore
    position = False if rescore is None else (rescore.revision, *_priority_row(rescore.priority))
    return *delta_row(finish.delta), finish.status.value, finish.reason.value, finish.stop_reason, position


def query_row(query: SiblingQuery) -> tuple[object, ...]:
    """A query in the form that siblings.lua reads."""
    return str(query.group), query.earlier, [number for pair in query.known for number in pair]


def pack_info(info: Heartbeat) -> bytes:
    """A worker's heartbeat as msgpack."""
    weights = info.weights.model_dump_json(exclude_defaults=True) if info.weights is not None else ""
    return _encoder.encode(InfoRow(info.state, info.metrics, weights, info.idle_seconds, info.busy_seconds))


# ---- from the store


def read_specs(flat: list[bytes]) -> dict[bytes, GroupSpec]:
    """Groups by id, from alternating ids and specs. A group whose data were deleted has no spec and is left out."""
    return {gid: _read_spec(gid, data) for gid, data in zip(flat[::2], flat[1::2], strict=True) if data}


def _read_spec(gid: bytes, data: bytes) -> GroupSpec:
    row = _specs.decode(data)
    return GroupSpec(
        id=GroupId.parse(gid.decode()),
        version=row.version,
        ordinal=row.ordinal,
        prompt=row.prompt,
        max_tokens=row.max_tokens,
        biases=row.biases or (0.0,) * row.size,
        lanes=row.lanes or (SHARED_LANE,) * row.size,
        priority=Priority(*row.priority),
        enqueued_at=row.enqueued_at,
        lengths=row.lengths,
        sampling=row.sampling,
        metadata=row.metadata,
        tier=row.tier,
        seeds=row.seeds,
        history=row.history,
        history_size=row.history_size,
        longest_earlier=row.longest_earlier,
        batch_ordinal=row.batch_ordinal,
    )


def read_view(row: Row) -> GroupView:
    """The view of a group."""
    gid, revision, ordinal, size, max_tokens, enqueued_at, finished, *facts = row
    longest_finished, longest_running, tier, longest_earlier, batch_ordinal = map(int, facts)
    return GroupView(
        id=GroupId.parse(gid.decode()),
        revision=int(revision),
        ordinal=int(ordinal),
        size=int(size),
        max_tokens=int(max_tokens),
        enqueued_at=float(enqueued_at),
        finished=int(finished),
        longest_finished=longest_finished,
        longest_running=longest_running,
        tier=tier,
        longest_earlier=longest_earlier,
        batch_ordinal=batch_ordinal,
    )


def read_reply(row: Row) -> Reply:
    """The reply to one delta or finish."""
    view = read_view(row[2]) if len(row) > 2 else None
    return Reply(_OUTCOMES[row[0]], row[1], view)


def read_extend(row: Row) -> ExtendReply:
    """The replies to the deltas, the views of groups whose rescore was stale, and the fleet load."""
    replies, views, (waiting, best, mine, inflight, workers, free_pace) = row
    fleet_load = FleetLoad(waiting, float(best), mine, inflight, workers, float(free_pace))
    return ExtendReply(tuple(map(read_reply, replies)), tuple(map(read_view, views)), fleet_load)


def read_siblings(reply: Row) -> list[Siblings]:
    """The new tokens of responses, and the stored earlier responses, by group."""
    return [_read_siblings(*row) for row in reply]


def _read_siblings(gid: bytes, flat: Row, earlier: Row | None) -> Siblings:
    news = tuple(map(SiblingTokens._make, zip(flat[::3], flat[1::3], flat[2::3], strict=True)))
    return Siblings(GroupId.parse(gid.decode()), news, None if earlier is None else tuple(earlier))


def read_claims(reply: Row) -> list[Claim]:
    """Leases; the reply has each group's spec once."""
    rows, flat = reply
    specs = read_specs(flat)
    return [_read_claim(row, specs[row[6][0]]) for row in rows]


def _read_claim(row: Row, spec: GroupSpec) -> Claim:
    name, fence, tokens, base, slope, probe, view, version, appended = row
    request = RequestId.parse(name.decode())
    return Claim(
        request=request,
        fence=int(fence),
        prompt=spec.prompt,
        tokens=tokens,
        max_tokens=spec.max_tokens,
        bias=spec.biases[request.index],
        true_length=spec.lengths[request.index] if spec.lengths else 0,
        sampling=spec.sampling,
        priority=Priority(float(base), float(slope), float(probe) if probe else None),
        view=read_view(view),
        seed=spec.seeds[request.index] if spec.seeds else None,
        version=version.decode(),
        appended=appended,
    )


def read_entries(reply: Row) -> list[Entry]:
    """Finished requests and ends of groups; the reply has each group's spec once."""
    rows, flat = reply
    specs = read_specs(flat)
    return [
        _read_result(row, specs[row[1].rpartition(b"/")[0]]) if len(row) == RESULT_FIELDS else _read_end(row)
        for row in rows
    ]


def _read_end(row: Row) -> GroupEnd:
    cursor, name, ended_at, *counts = row
    return GroupEnd(_number(cursor), GroupId.parse(name.decode()), float(ended_at), *counts)


def _number(stream_id: bytes) -> int:
    return int(stream_id.partition(b"-")[0])


def _read_result(row: Row, spec: GroupSpec) -> Result:
    cursor, name, status, reason, stop_reason, finished_at, tokens, logprobs, chunks, turn, version = row
    return Result(
        cursor=_number(cursor),
        request=RequestId.parse(name.decode()),
        version=version.decode(),
        status=Status(status.decode()),
        reason=FinishReason(reason.decode()),
        stop_reason=stop_reason.decode(),
        prompt=spec.prompt,
        tokens=tokens,
        logprobs=logprobs,
        metadata=spec.metadata,
        sampling=spec.sampling,
        enqueued_at=spec.enqueued_at,
        finished_at=float(finished_at),
        chunks=_read_chunks(chunks),
        turn=turn,
    )


def _read_chunks(rows: Row) -> tuple[Chunk, ...]:
    return tuple(Chunk(*_chunks.decode(row)) for row in rows)


def read_record(request: RequestId, row: Row) -> RequestRecord:
    """All data of one request."""
    state, fence, tokens, logprobs, chunks, turn, holder, reason = row
    past = _read_chunks(chunks)
    values = (State(state.decode()), int(fence), tokens, logprobs, past, turn, holder.decode(), reason.decode())
    return RequestRecord(request, *values)


def read_entry(data: bytes) -> JournalEntry:
    """One entry of the journal, as `note` in _shared.lua packs it."""
    return JournalEntry(*_entries.decode(data))


_COUNTS = tuple(field.name for field in fields(BatchProgress) if field.name != "sealed")


def read_progress(flat: list[bytes]) -> BatchProgress:
    """The counts of a batch, from its hash."""
    return _read_counts(_read_hash(flat))


def _read_hash(flat: list[bytes]) -> dict[str, bytes]:
    return {field.decode(): value for field, value in zip(flat[::2], flat[1::2], strict=True)}


def _read_counts(batch_hash: dict[str, bytes]) -> BatchProgress:
    counts = {name: read_count(batch_hash.get(name, 0)) for name in _COUNTS}
    has_all = read_count(batch_hash.get("submitted", 0)) >= read_count(batch_hash.get("expected", 0))
    return BatchProgress(**counts, sealed="sealed" in batch_hash and has_all)


def read_batches(reply: Row) -> list[BatchRecord]:
    """Opened batches, from alternating numbers and hashes."""
    return [_read_batch(number, _read_hash(flat)) for number, flat in zip(reply[::2], reply[1::2], strict=True)]


def _read_batch(number: int, batch_hash: dict[str, bytes]) -> BatchRecord:
    times = {name: float(batch_hash.get(name, 0.0)) for name in ("opened_at", "started_at", "tail_at", "ended_at")}
    return BatchRecord(
        number=number,
        version=batch_hash["version"].decode(),
        spec=batch_hash["spec"].decode(),
        progress=_read_counts(batch_hash),
        **times,
        acknowledged=int(batch_hash.get("acknowledged", 0)),
        forgotten="forgotten" in batch_hash,
        ordinal=int(batch_hash.get("ordinal", 0)),
        swept=int(batch_hash.get("swept", 0)),
        takes_parked="takes_parked" in batch_hash,
    )


def read_load(reply: Row) -> QueueLoad:
    """The number of waiting requests by version, and of running ones."""
    running, idle, busy, *rest = reply
    waiting: dict[str, int] = {}
    for lane, count in zip(rest[::2], rest[1::2], strict=True):
        length, _, names = lane.decode().partition(":")
        version = names.encode()[: int(length)].decode()
        if count:
            waiting[version] = waiting.get(version, 0) + count
    return QueueLoad(waiting, running, read_seconds(idle), read_seconds(busy))


def read_worker(row: Row) -> WorkerStatus:
    """The last heartbeat of a worker."""
    name, boot, seen_at, info, inflight = row
    info_row = _infos.decode(info)
    weights = WeightsReport.model_validate_json(info_row.weights, extra="ignore") if info_row.weights else None
    heartbeat = Heartbeat(
        WorkerState(info_row.state),
        WorkerMetrics(info_row.metrics),
        weights,
        info_row.idle_seconds,
        info_row.busy_seconds,
    )
    return WorkerStatus(name.decode(), boot.decode(), float(seen_at), inflight, heartbeat)
