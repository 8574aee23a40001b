"""Spans of a batch and of its requests. Spans contain counts, times and names, never tokens, texts or metadata."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from openseer_core.ids import WorkerId
from openseer_core.queue.messages import APPEND, BatchProgress, Chunk, Result
from openseer_core.queue.states import Event, Status
from openseer_core.tokens import count_items
from openseer_core.traces.span import Attribute, SpanEvent, TraceSpan, span_id_of, trace_id_of
from openseer_core.traces.traceparent import TraceParent

MOST_EVENTS = 64
"""Limit of a request's leases that become events of its span; the attribute `openseer.leases` counts all."""


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """The trace of a batch. `job`: NAMESPACE/NAME. `opened_at`: in seconds of the job's clock; it distinguishes batches
    with the same number. `parent`: the span of the trainer's call, None if the trainer sent none."""

    job: str
    batch: int
    opened_at: float
    parent: TraceParent | None = None

    @property
    def trace_id(self) -> int:
        """The id of the trainer's trace, or of the batch's own trace without `parent`."""
        return self.parent.trace_id if self.parent is not None else trace_id_of(self.job, self.batch, self.opened_at)

    @property
    def span_id(self) -> int:
        """The id of the batch's span."""
        return span_id_of(self.trace_id, self.job, self.batch, self.opened_at)

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The attributes of all spans of the batch."""
        return {"openseer.job": self.job, "openseer.batch": self.batch}


def batch_span(
    trace: BatchTrace, progress: BatchProgress, version: str, ended_at: float, drafted: Mapping[str, int]
) -> TraceSpan:
    """The span of a batch, from its opening to its last result. `drafted`: name → total of drafts during the batch."""
    counts: dict[str, Attribute] = {
        "groups": progress.groups,
        "requests": progress.requests,
        "ok": progress.ok,
        "aborted": progress.aborted,
        "infra_failed": progress.infra_failed,
        "carried_over": progress.carried_over,
        "tokens": progress.tokens,
        "weights_version": version,
        **drafted,
    }
    return TraceSpan(
        "batch",
        trace.trace_id,
        trace.span_id,
        trace.parent.span_id if trace.parent is not None else 0,
        trace.opened_at,
        max(trace.opened_at, ended_at),
        trace.attributes | {f"openseer.{name}": value for name, value in counts.items()},
        caller=trace.parent,
    )


def request_span(trace: BatchTrace, result: Result) -> TraceSpan:
    """The span of one turn of a request, from its queueing to its end; parent: the batch's span; events: its leases."""
    return _request_span(trace, result, trace.trace_id, trace.span_id, trace.parent)


def lone_request_span(trace: BatchTrace, result: Result, caller: TraceParent | None) -> TraceSpan:
    """The span of a live request; parent: the span of the caller, or none, in a trace of the request's own."""
    if caller is not None:
        return _request_span(trace, result, caller.trace_id, caller.span_id, caller)
    return _request_span(trace, result, trace_id_of(trace.trace_id, result.request), 0, None)


def _request_span(
    trace: BatchTrace, result: Result, trace_id: int, parent_id: int, caller: TraceParent | None
) -> TraceSpan:
    queued_at, chunks = _of_turn(trace, result)
    leases = [chunk for chunk in chunks if chunk.event != APPEND]
    start = min([queued_at, result.finished_at, *(lease.claimed_at for lease in leases[:1])])
    generated = sum(lease.end - lease.start for lease in leases)
    group = result.request.group
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.usage.input_tokens": count_items(result.prompt) + count_items(result.tokens) - generated,
        "gen_ai.usage.output_tokens": generated,
        "openseer.group": group.name,
        "openseer.index": result.request.index,
        "openseer.turn": result.turn,
        "openseer.turns": result.turn + 1,
        "openseer.status": result.status.value,
        "openseer.finish_reason": result.reason.value,
        "openseer.weights_version": result.version,
        "openseer.chunks": len(chunks),
        "openseer.leases": len(leases),
        "openseer.moves": sum(_name(one.worker) != _name(other.worker) for one, other in pairwise(leases)),
        "openseer.losses": sum(lease.event == Event.REAP for lease in leases),
        "openseer.wait_seconds": round(_waited(start, leases, result.finished_at), 6),
        "openseer.run_seconds": round(sum(lease.ended_at - lease.claimed_at for lease in leases), 6),
    }
    if leases:
        attributes["openseer.worker"] = _name(leases[-1].worker)
    failed = result.status is Status.INFRA_FAILED
    return TraceSpan(
        "request",
        trace_id,
        span_id_of(trace.trace_id, trace.span_id, result.request, result.turn),
        parent_id,
        start,
        result.finished_at,
        trace.attributes | attributes | ({"error.type": result.status.value} if failed else {}),
        tuple(_events(leases[:MOST_EVENTS])),
        result.reason.value if failed else "",
        caller,
    )


def _of_turn(trace: BatchTrace, result: Result) -> tuple[float, Sequence[Chunk]]:
    """The time at which the last turn was queued, infinity if unknown (no tokens were appended); and the turn's chunks.

    For a carried request only the time since its batch was opened counts, because an earlier span covers the rest.
    """
    ends = [at for at, chunk in enumerate(result.chunks, 1) if chunk.event == Event.COMPLETE][: result.turn]
    chunks = result.chunks[ends[-1] if ends else 0 :]
    appended = (chunk.ended_at for chunk in chunks if chunk.event == APPEND)
    queued_at = max(appended, default=inf) if result.turn else result.enqueued_at
    if result.request.group.origin is None:
        return queued_at, chunks
    return max(queued_at, trace.opened_at), [chunk for chunk in chunks if chunk.ended_at > trace.opened_at]


def _waited(start: float, leases: Sequence[Chunk], end: float) -> float:
    """Seconds between `start` and `end` without a lease. The time after the lease that completed the turn does not
    count, although a carried request's result may be later."""
    if leases and leases[-1].event == Event.COMPLETE:
        end = leases[-1].ended_at
    waited, since = 0.0, start
    for lease in leases:
        waited += max(0.0, lease.claimed_at - since)
        since = lease.ended_at
    return waited + max(0.0, end - since)


def _events(leases: Iterable[Chunk]) -> Iterable[SpanEvent]:
    for lease in leases:
        worker: dict[str, Attribute] = {"openseer.worker": _name(lease.worker)}
        yield SpanEvent(Event.CLAIM.value, lease.claimed_at, worker | {"openseer.tokens": lease.start})
        yield SpanEvent(lease.event, lease.ended_at, worker | {"openseer.tokens": lease.end})


def _name(worker: str) -> str:
    return WorkerId.parse(worker).name if "#" in worker else worker
