"""Renders records of the store as JSON values of the API."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, TypeVar

from openseer_core.ids import GroupId
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.batch import TAIL, BatchRecord, Entry, GroupEnd
from openseer_core.queue.messages import APPEND, Chunk, RequestRecord, Result
from openseer_core.queue.time_left import mean_length, seconds_left, tokens_left
from openseer_core.token_scores import likeliest, own_scores
from openseer_core.tokens import readable_logprobs, unpack_tokens
from openseer_core.wire.batches import Batch, BatchMetrics, BatchSpec, BatchState, RequestInfo, Target
from openseer_core.wire.results import ChunkInfo, VersionSpan
from openseer_core.worker.draft_metrics import DraftMetrics
from openseer_store.routed.assembly import RoutedExperts
from openseer_text.rendering import TextCodec
from openseer_text.stop_strings import visible_text

SCORE_BYTES_AT_ONCE = 64 * 2**10
"""Limit of the scores that are rendered on the event loop, in bytes.
More are rendered in a thread, so that other calls proceed."""
_Made = TypeVar("_Made")


async def made(score_bytes: int, make: Callable[[], _Made]) -> _Made:
    """Returns the value of `make`, which is called in a thread if it renders more than SCORE_BYTES_AT_ONCE."""
    return make() if score_bytes <= SCORE_BYTES_AT_ONCE else await asyncio.to_thread(make)


def render_batch(
    record: BatchRecord, spec: BatchSpec, job: str, now: float, drafts: DraftMetrics, pace: float = 0.0
) -> Batch:
    """Returns the present state of a batch. `job`: NAMESPACE/NAME; `now`: seconds of the store's clock; `drafts`: the
    fleet's draft metrics while the batch ran; `pace`: tokens per second of one response, 0 if unknown."""
    counts = record.progress
    open_ = counts.requests - counts.closed
    return Batch(
        id=record.number,
        job=job,
        opened_at=record.opened_at,
        state=_state(record),
        weights_version=record.version,
        purpose=spec.purpose,
        priority=spec.priority,
        target=spec.target,
        target_met=is_met(record, spec.target),
        wanted=_wanted(record, spec.target),
        progress=counts.closed / counts.requests if counts.requests else 0.0,
        eta_seconds=_eta(record, now, pace),
        tail=0 < open_ <= counts.requests / TAIL,
        last_cursor=counts.entries,
        acknowledged_cursor=record.acknowledged,
        metrics=_metrics(record, now, drafts),
        metadata=spec.metadata,
    )


def is_met(record: BatchRecord, target: Target | None) -> bool:
    """Whether the batch has met its target."""
    if target is None:
        return False
    counts = record.progress
    return (counts.valid if target.count == "valid" else counts.groups_whole) >= target.groups


def is_complete(record: BatchRecord) -> bool:
    """Whether the batch will have no further results."""
    return record.progress.complete or record.forgotten


def _state(record: BatchRecord) -> BatchState:
    if record.forgotten:
        return "acknowledged"
    if record.progress.complete:
        return "complete"
    return "sealed" if record.progress.sealed else "open"


def _wanted(record: BatchRecord, target: Target | None) -> int:
    """Returns the number of groups that are still to be submitted, if all unfinished ones become whole and valid."""
    if target is None:
        return 0
    counts = record.progress
    running = counts.groups - counts.groups_ended
    if target.count == "finished":
        return max(0, target.groups - counts.groups_whole - running)
    hopeful = counts.groups_whole - counts.valid - counts.invalid
    return max(0, target.groups - counts.valid - max(0, hopeful) - running)


def _eta(record: BatchRecord, now: float, pace: float) -> float | None:
    """Returns the expected seconds to the end, from the batch's mean tokens per second and `pace`;
    None while no length is known, or while the unfinished responses are longer than expected."""
    counts = record.progress
    running = now - record.started_at if record.started_at else 0.0
    speed = counts.own_tokens / running if running > 0 else 0.0
    unfinished = counts.requests - counts.closed
    return seconds_left(tokens_left(counts), speed, unfinished=unfinished, pace=pace or inf)


def _metrics(record: BatchRecord, now: float, drafts: DraftMetrics) -> BatchMetrics:
    counts = record.progress
    end = record.ended_at if counts.closed == counts.requests else now
    seconds = max(0.0, end - record.started_at) if record.started_at else 0.0
    return BatchMetrics(
        groups=counts.groups,
        groups_finished=counts.groups_ended,
        groups_whole=counts.groups_whole,
        groups_valid=counts.valid,
        groups_invalid=counts.invalid,
        groups_carried=counts.groups_carried,
        groups_stale=counts.groups_stale,
        requests=counts.requests,
        requests_ok=counts.ok,
        requests_aborted=counts.aborted,
        requests_infra_failed=counts.infra_failed,
        requests_carried_over=counts.carried_over,
        tokens=counts.tokens,
        seconds=seconds,
        tokens_per_second=counts.own_tokens / seconds if seconds else 0.0,
        tail_seconds=max(0.0, end - record.tail_at) if record.tail_at else 0.0,
        length_mean=mean_length(counts),
        length_max=counts.longest,
        drafted_tokens=drafts.drafted,
        accepted_tokens=drafts.accepted,
        draft_share=drafts.draft_share,
        acceptance_length=drafts.acceptance_length or 1.0,
    )


# ---- results: plain dictionaries, because thousands per second are rendered


def render_entry(entry: Entry, codec: TextCodec | None, rows: RoutedExperts | None = None) -> dict[str, Any]:
    """Renders an entry of a results stream in the form of wire.ResultItem or wire.GroupItem.
    `rows`: the routed experts of a result, or None."""
    return render_result(entry, codec, rows) if isinstance(entry, Result) else _group_item(entry)


def render_result(result: Result, codec: TextCodec | None, rows: RoutedExperts | None = None) -> dict[str, Any]:
    """Renders a finished turn in the form of wire.ResultItem. `codec`: None leaves out the text."""
    sampling = parse_sampling(result.sampling)
    tokens = unpack_tokens(result.tokens)
    has_logprobs = sampling.logprobs != "none"
    read = codec.read if codec is not None else None
    return {
        "kind": "result",
        "cursor": result.cursor,
        "batch": result.request.group.batch,
        "group": result.request.group.name,
        "carried_from": _origin(result.request.group),
        "index": result.request.index,
        "turn": result.turn,
        "status": result.status.value,
        "finish_reason": result.reason.value,
        "stop_reason": result.ended_by or None,
        "weights_version": result.version,
        "versions": version_spans(result.chunks),
        "prompt_token_ids": unpack_tokens(result.prompt),
        "token_ids": tokens,
        "logprobs": readable_logprobs(own_scores(result.tokens, result.logprobs)) if has_logprobs else None,
        "top_logprobs": likeliest(result.tokens, result.logprobs),
        "routed_experts": _routed(rows) if rows is not None else None,
        "logprobs_of": sampling.logprobs if has_logprobs else None,
        "sampled": sampled_spans(result.chunks) if sampling.score_from is None else [],
        "text": visible_text(read, tokens, result.stop_reason, sampling.stop) if read is not None else None,
        "chunks": [_chunk(chunk) for chunk in result.chunks],
        "metadata": _metadata(result.metadata),
        "enqueued_at": result.enqueued_at,
        "finished_at": result.finished_at,
    }


def _routed(found: RoutedExperts) -> dict[str, Any]:
    """Renders routed experts in the form of wire.RoutedRows."""
    return {
        "start": 0,
        "shape": found.array_shape,
        "dtype": found.shape.dtype if found.shape is not None else "uint8",
        "data": b64encode(found.rows).decode(),
        "gaps": found.gaps,
        "missing": list(found.missing),
    }


def _origin(group: GroupId) -> dict[str, Any] | None:
    """Returns the batch and name with which a carried group was submitted (wire.Origin); None for other groups."""
    origin = group.origin
    return {"batch": origin.batch, "group": origin.name} if origin is not None else None


def _group_item(end: GroupEnd) -> dict[str, Any]:
    return {
        "kind": "group",
        "cursor": end.cursor,
        "batch": end.group.batch,
        "group": end.group.name,
        "carried_from": _origin(end.group),
        "size": end.size,
        "ok": end.ok,
        "aborted": end.aborted,
        "infra_failed": end.infra_failed,
        "carried_over": end.carried_over,
        "whole": end.whole,
        "finished_at": end.ended_at,
    }


def _chunk(chunk: Chunk) -> dict[str, Any]:
    return {
        "worker": chunk.worker,
        "start": chunk.start,
        "end": chunk.end,
        "claimed_at": chunk.claimed_at,
        "ended_at": chunk.ended_at,
        "event": chunk.event,
        "version": chunk.version,
    }


def _metadata(text: str) -> Any:
    return json.loads(text).get("metadata", {})


def version_spans(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """Returns the spans of sampled tokens by weights version. Adjacent spans of one version are merged."""
    spans: list[dict[str, Any]] = []
    for chunk in chunks:
        if chunk.event == APPEND or chunk.start == chunk.end:
            continue
        if spans and spans[-1]["version"] == chunk.version and spans[-1]["end"] == chunk.start:
            spans[-1]["end"] = chunk.end
        else:
            spans.append({"version": chunk.version, "start": chunk.start, "end": chunk.end})
    return spans


def sampled_spans(chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    """Returns the spans [start, end) of sampled tokens, merged if they are adjacent."""
    spans: list[tuple[int, int]] = []
    for chunk in chunks:
        if chunk.event == APPEND or chunk.start == chunk.end:
            continue
        if spans and spans[-1][1] == chunk.start:
            spans[-1] = (spans[-1][0], chunk.end)
        else:
            spans.append((chunk.start, chunk.end))
    return spans


def render_request(record: RequestRecord) -> RequestInfo:
    """Returns the present state of a request, with its tokens up to the last checkpoint."""
    tokens = unpack_tokens(record.tokens)
    logprobs = readable_logprobs(own_scores(record.tokens, record.logprobs)) if record.logprobs else None
    return RequestInfo(
        batch=record.request.group.batch,
        group=record.request.group.name,
        index=record.request.index,
        turn=record.turn,
        state=record.state.value,
        finish_reason=record.reason or None,
        worker=record.holder.split("#", 1)[0] if record.state.value == "leased" else None,
        token_ids=tokens,
        logprobs=logprobs,
        sampled=sampled_spans(record.chunks),
        versions=[VersionSpan(**span) for span in version_spans(record.chunks)],
        chunks=chunk_infos(record.chunks),
    )


def chunk_infos(chunks: Sequence[Chunk]) -> list[ChunkInfo]:
    """Renders the chunks of a response: leases, and appended tokens."""
    return [ChunkInfo(**_chunk(chunk)) for chunk in chunks]
