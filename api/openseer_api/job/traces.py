"""The spans of a served job. They are created when results are read: a result contains all data of its request's span.

If results are read again, after a trainer's restart or by another replica, a span may be sent twice, with the same ids.
"""

from collections.abc import Sequence
from typing import TypeVar

from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.batch import BatchRecord, Entry
from openseer_core.queue.messages import Result
from openseer_core.traces.of_requests import BatchTrace, batch_span, lone_request_span, request_span
from openseer_core.traces.of_weights import transaction_spans
from openseer_core.traces.traceparent import TraceParent
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.wire.batches import BatchSpec
from openseer_core.worker.draft_metrics import DraftMetrics
from openseer_process.span_export import SpanTaker

KNOWN_BATCHES = 256
"""Limit of batches whose last traced cursor is kept."""
_Key = tuple[int, float]
_Value = TypeVar("_Value")


class JobTraces:
    """Creates a job's spans and passes them to `taker`."""

    def __init__(self, job: RolloutJob, taker: SpanTaker) -> None:
        self._job = f"{job.namespace}/{job.name}"
        self._taker = taker
        self._sent: dict[_Key, int] = {}
        self._ended: dict[_Key, None] = {}

    def note_entries(self, record: BatchRecord, spec: BatchSpec, entries: Sequence[Entry]) -> None:
        """Creates the spans of entries that a reader of a batch receives;
        skips entries for which it created one before."""
        key = (record.number, record.opened_at)
        sent = self._sent.get(key, 0)
        trace = self._trace(record, spec)
        fresh = [entry for entry in entries if entry.cursor > sent]
        self._taker.give(request_span(trace, entry) for entry in fresh if isinstance(entry, Result))
        if fresh:
            _keep(self._sent, key, fresh[-1].cursor)

    def note_end(self, record: BatchRecord, spec: BatchSpec, drafts: DraftMetrics, now: float) -> None:
        """Creates the span of a batch that has ended or was deleted, once. `now`: seconds of the store's clock."""
        key = (record.number, record.opened_at)
        if key in self._ended:
            return
        _keep(self._ended, key, None)
        drafted = {"drafted_tokens": drafts.drafted, "accepted_tokens": drafts.accepted}
        trace, ended_at = self._trace(record, spec), record.ended_at if record.progress.complete else now
        self._taker.give([batch_span(trace, record.progress, record.version, ended_at, drafted)])

    def note_live(self, number: int, opened_at: float, result: Result, caller: TraceParent | None) -> None:
        """Creates the span of an ended request of the compatible routes. `number`, `opened_at`: of its live batch."""
        self._taker.give([lone_request_span(BatchTrace(self._job, number, opened_at), result, caller)])

    def note_swap(self, before: FleetSpec, after: FleetSpec) -> None:
        """Creates the spans of a weights transaction if it ended with this change of the fleet spec."""
        transaction = after.transaction
        if before.active_transaction is not None and transaction is not None and not transaction.active:
            self._taker.give(transaction_spans(self._job, transaction))

    def _trace(self, record: BatchRecord, spec: BatchSpec) -> BatchTrace:
        return BatchTrace(self._job, record.number, record.opened_at, TraceParent.parse(spec.traceparent))


def _keep(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    known.pop(key, None)
    if len(known) >= KNOWN_BATCHES:
        known.pop(next(iter(known)))
    known[key] = value
