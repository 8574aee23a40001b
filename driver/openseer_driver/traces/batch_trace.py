"""Makes the spans of a batch job: one per request once its result is on disk, and one for the batch at its end."""

import os
from collections.abc import Iterable, Mapping

from openseer_core.ids import BATCH_JOB_BATCH, INITIAL_VERSION
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.messages import Result
from openseer_core.traces.of_requests import BatchTrace, batch_span, request_span
from openseer_core.traces.traceparent import TraceParent
from openseer_core.worker.draft_metrics import summed
from openseer_process.span_export import SpanTaker
from openseer_store.port import DriverStore

PARENT = "TRACEPARENT"
"""Environment variable: the parent of the run's spans, as a W3C traceparent."""


class RunTraces:
    """Creates a run's spans and gives them to `taker`. A resumed run keeps its trace: the trace id is derived from the
    time at which its first group was queued."""

    def __init__(self, job: RolloutJob, taker: SpanTaker, environment: Mapping[str, str] = os.environ) -> None:
        self._job = f"{job.namespace}/{job.name}"
        self._taker = taker
        self._parent = TraceParent.parse(environment.get(PARENT))
        self._trace: BatchTrace | None = None
        self._ended_at = 0.0

    async def begin(self, store: DriverStore) -> None:
        """Begins the trace. Call it after the groups are queued."""
        if self._trace is None:
            first = await store.groups(BATCH_JOB_BATCH, 0, 1)
            queued_at = first[0].enqueued_at if first else 0.0
            self._trace = BatchTrace(self._job, BATCH_JOB_BATCH, queued_at, self._parent)

    def note(self, results: Iterable[Result], written: Iterable[Result]) -> None:
        """Notes the ends of results that are on disk, and exports the spans of those that have just been `written`.

        A resumed run reads the results of its earlier sessions again: the batch's span ends with the last of them all.
        """
        if self._trace is None:
            return
        self._ended_at = max([self._ended_at, *(result.finished_at for result in results)])
        for result in written:
            self._taker.give([request_span(self._trace, result)])

    async def end(self, store: DriverStore) -> None:
        """Exports the batch's span. Call it after all results are on disk."""
        if self._trace is None:
            return
        progress = await store.progress(BATCH_JOB_BATCH)
        drafts = summed(worker.heartbeat.metrics.drafts for worker in await store.workers())
        drafted = {"drafted_tokens": drafts.drafted, "accepted_tokens": drafts.accepted}
        self._taker.give([batch_span(self._trace, progress, INITIAL_VERSION, self._ended_at, drafted)])
