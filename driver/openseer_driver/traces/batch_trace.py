"""The spans of a batch job: a request's when its result is safe, the batch's when it is complete."""

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
"""Environment: the span that the run's are below, where who starts it has one."""


class RunTraces:
    """Gives them to a taker. A run that goes on stays in its trace, which is known by when its first group was
    queued."""

    def __init__(self, job: RolloutJob, taker: SpanTaker, environment: Mapping[str, str] = os.environ) -> None:
        self._job = f"{job.namespace}/{job.name}"
        self._taker = taker
        self._parent = TraceParent.parse(environment.get(PARENT))
        self._trace: BatchTrace | None = None
        self._ended_at = 0.0

    async def begin(self, store: DriverStore) -> None:
        """Once the groups are queued."""
        if self._trace is None:
            first = await store.groups(BATCH_JOB_BATCH, 0, 1)
            queued_at = first[0].enqueued_at if first else 0.0
            self._trace = BatchTrace(self._job, BATCH_JOB_BATCH, queued_at, self._parent)

    def note(self, results: Iterable[Result]) -> None:
        """These are on the disk, and were not before."""
        if self._trace is None:
            return
        for result in results:
            self._ended_at = max(self._ended_at, result.finished_at)
            self._taker.give([request_span(self._trace, result)])

    async def end(self, store: DriverStore) -> None:
        """All results are on the disk."""
        if self._trace is None:
            return
        progress = await store.progress(BATCH_JOB_BATCH)
        drafts = summed(worker.heartbeat.metrics.drafts for worker in await store.workers())
        drafted = {"drafted_tokens": drafts.drafted, "accepted_tokens": drafts.accepted}
        self._taker.give([batch_span(self._trace, progress, INITIAL_VERSION, self._ended_at, drafted)])
