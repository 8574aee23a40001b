"""The display of a serving job: its fleet, its open batches and the running weights transaction."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.text import Text

from openseer_core.wire.batches import Batch
from openseer_core.wire.fleet import JobStatus, WorkerInfo
from openseer_core.wire.weights import Transaction
from openseer_core.worker.metrics import WorkerMetrics
from openseer_local.terminal.display import TICK_SECONDS, Display
from openseer_local.terminal.draft_cells import draft_notes
from openseer_local.terminal.tables import (
    batches_table,
    closed_of,
    errors_of,
    job_line,
    transaction_line,
    transaction_table,
    weights_problems,
    workers_table,
)

QUIET_EVERY_SECONDS = 30.0
"""Interval of the printed lines without a terminal, in seconds; long, because a server runs for days."""
RATE_SECONDS = 10.0
"""Window over which tokens per second are computed, in seconds."""
SHOWN_BATCHES = 6
"""Number of batches shown: the latest."""
PAST_SECONDS = 10.0
"""Time for which an ended transaction is shown, in seconds."""


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """The job at one moment. `at`: seconds of the store's clock."""

    at: float
    job: JobStatus
    workers: list[WorkerInfo]
    batches: list[Batch]


class ServingDisplay(Display):
    """The display of `openseer serve`."""

    def __init__(
        self,
        console: Console,
        live: bool,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float | None = TICK_SECONDS,
    ) -> None:
        super().__init__(console, live, clock=clock, tick_seconds=tick_seconds)
        self._plain_every = QUIET_EVERY_SECONDS
        self._recent: deque[JobSnapshot] = deque()
        self._last_line = ""
        self._has_begun = False
        self._shown_problems: set[str] = set()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._recent.clear()  # the job is no longer served: no final line
        super().__exit__(*_)

    def show(self, snapshot: JobSnapshot) -> None:
        """Shows the job's present state. The first ready worker ends the start-up; a new problem is shown at once."""
        with self._lock:
            if snapshot.job.workers_ready and not self._has_begun:
                self._has_begun = True
                self._end_phase()
                self._printed_at = float("-inf")
            problems = set(errors_of(snapshot.workers).values())
            if problems - self._shown_problems:
                self._printed_at = float("-inf")
            self._shown_problems = problems
            self._recent.append(snapshot)
            while len(self._recent) > 2 and self._recent[1].at <= snapshot.at - RATE_SECONDS:
                self._recent.popleft()
            self._draw()
            self._plain_if_due()

    def body(self) -> list[RenderableType]:
        """Returns a line on the job, then tables."""
        if not self._recent:
            return []
        now = self._recent[-1]
        parts: list[RenderableType] = [Text(job_line(now.job), style="bold")]
        if now.workers:
            notes = draft_notes(WorkerMetrics(worker.figures).speculation for worker in now.workers)
            parts += [workers_table(now.workers, self._rates()), *notes, *weights_problems(errors_of(now.workers))]
        if now.batches:
            parts += [batches_table(now.batches[-SHOWN_BATCHES:])]
        if len(now.batches) > SHOWN_BATCHES:
            parts += [Text(f"and {len(now.batches) - SHOWN_BATCHES} earlier batches", style="dim")]
        transaction = now.job.transaction
        if transaction is not None and not _is_past(transaction, now.at):
            parts += [transaction_line(transaction, now.at), transaction_table(transaction)]
        return parts

    def line(self) -> str:
        """Returns a line on the job and its open batches; "" if it equals the line before."""
        if not self._recent:
            return ""
        now = self._recent[-1]
        open_ = [batch for batch in now.batches if batch.state in ("open", "sealed")]
        batches = [f"batch {batch.id}: {closed_of(batch)}/{batch.metrics.requests}" for batch in open_[-SHOWN_BATCHES:]]
        problems = [problem.plain for problem in weights_problems(errors_of(now.workers))]
        text = "openseer: " + "  ".join([job_line(now.job), *batches, *problems])
        if text == self._last_line:
            return ""
        self._last_line = text
        return text

    def _rates(self) -> dict[str, float]:
        """Tokens per second of each worker."""
        before, after = self._recent[0], self._recent[-1]
        seconds = after.at - before.at
        old = {worker.name: _tokens(worker) for worker in before.workers}
        if seconds <= 0:
            return {}
        return {
            worker.name: max(0.0, _tokens(worker) - old.get(worker.name, 0.0)) / seconds for worker in after.workers
        }


def _is_past(transaction: Transaction, now: float) -> bool:
    return transaction.finished_at is not None and now - transaction.finished_at >= PAST_SECONDS


def _tokens(worker: WorkerInfo) -> float:
    return float(WorkerMetrics(worker.figures).tokens)
