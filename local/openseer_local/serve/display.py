"""How a serving job stands: its fleet, its open batches and the weights that are being published."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.text import Text

from openseer_core.wire.batches import Batch
from openseer_core.wire.fleet import JobStatus, WorkerInfo
from openseer_local.terminal.display import TICK_SECONDS, Display
from openseer_local.terminal.draft_cells import draft_notes
from openseer_local.terminal.tables import (
    batches_table,
    closed_of,
    job_line,
    transaction_line,
    transaction_table,
    workers_table,
)

QUIET_EVERY_SECONDS = 30.0
"""A server runs for days: without a terminal its lines come seldom."""
RATE_SECONDS = 10.0
SHOWN_BATCHES = 6
"""The latest ones are shown."""
NEWS_SECONDS = 10.0
"""A transaction that has ended is shown for so long."""


@dataclass(frozen=True, slots=True)
class Standing:
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
        self._recent: deque[Standing] = deque()
        self._said = ""
        self._has_begun = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._recent.clear()  # nothing of it is true any more
        super().__exit__(*_)

    def show(self, standing: Standing) -> None:
        """How the job stands now; the first worker that is ready ends the start-up."""
        with self._lock:
            if standing.job.workers_ready and not self._has_begun:
                self._has_begun = True
                self._end_phase()
                self._printed_at = float("-inf")
            self._recent.append(standing)
            while len(self._recent) > 2 and self._recent[1].at <= standing.at - RATE_SECONDS:
                self._recent.popleft()
            self._draw()
            self._plain_if_due()

    def body(self) -> list[RenderableType]:
        """The job in a line, then tables."""
        if not self._recent:
            return []
        now = self._recent[-1]
        parts: list[RenderableType] = [Text(job_line(now.job), style="bold")]
        if now.workers:
            notes = draft_notes(str(worker.figures.get("drafts", "")) for worker in now.workers)
            parts += [workers_table(now.workers, self._rates()), *notes]
        if now.batches:
            parts += [batches_table(now.batches[-SHOWN_BATCHES:])]
        if len(now.batches) > SHOWN_BATCHES:
            parts += [Text(f"and {len(now.batches) - SHOWN_BATCHES} earlier batches", style="dim")]
        told = now.job.transaction
        if told is not None and (told.finished_at is None or now.at - told.finished_at < NEWS_SECONDS):
            parts += [transaction_line(told, now.at), transaction_table(told)]
        return parts

    def line(self) -> str:
        """The job in a line, with its open batches; empty where that has been said."""
        if not self._recent:
            return ""
        now = self._recent[-1]
        open_ = [one for one in now.batches if one.state in ("open", "sealed")]
        batches = [f"batch {one.id}: {closed_of(one)}/{one.metrics.requests}" for one in open_[-SHOWN_BATCHES:]]
        said = "openseer: " + "  ".join([job_line(now.job), *batches])
        if said == self._said:
            return ""
        self._said = said
        return said

    def _rates(self) -> dict[str, float]:
        """Tokens per second of each worker."""
        before, after = self._recent[0], self._recent[-1]
        seconds = after.at - before.at
        old = {one.name: _tokens(one) for one in before.workers}
        if seconds <= 0:
            return {}
        return {one.name: max(0.0, _tokens(one) - old.get(one.name, 0.0)) / seconds for one in after.workers}


def _tokens(worker: WorkerInfo) -> float:
    return float(worker.figures.get("tokens", 0))
