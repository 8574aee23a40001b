"""Progress of a batch job: a bar and a table of workers, or a line of metrics."""

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from openseer_core.worker.draft_metrics import DraftMetrics
from openseer_driver.report.pace import Pace
from openseer_driver.run_lines import SampleLine
from openseer_local.terminal.display import TICK_SECONDS, Display
from openseer_local.terminal.draft_cells import draft_cell, draft_notes
from openseer_local.terminal.tables import STATE_STYLES


class ProgressDisplay(Display):
    """The display of `openseer run`."""

    def __init__(
        self,
        console: Console,
        live: bool,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float | None = TICK_SECONDS,
    ) -> None:
        super().__init__(console, live, clock=clock, tick_seconds=tick_seconds)
        self._pace = Pace()
        self._empty_shown = self._waits = False

    def wait_for_work(self) -> None:
        """Shows that all groups are submitted. The first sample with a running request ends the start-up."""
        self._waits = not self._pace.has_begun
        self.phase("waiting for the first worker" if self._waits else "")

    def update(self, sample: SampleLine) -> None:
        """Shows the latest sample."""
        with self._lock:
            if self._waits and sample.has_begun:
                self._waits = False
                self._end_phase()
            self._pace.take(sample, self._clock())
            queue_emptied = sample.none_waits and not self._empty_shown
            self._empty_shown = self._empty_shown or queue_emptied
            if queue_emptied:
                self._printed_at = float("-inf")
            self._draw()
            self._plain_if_due()

    def body(self) -> list[RenderableType]:
        """A bar with metrics, a row per worker, and the reasons if workers do not draft."""
        sample = self._pace.latest
        if sample is None:
            return []
        notes = draft_notes(worker.drafting for worker in sample.workers.values())
        return [self._bar(sample), self._workers(sample), *notes]

    def line(self) -> str:
        """The metrics in one line."""
        if not self._pace.latest:
            return ""
        return "openseer: " + "  ".join(self._pace.facts(workers=True))

    def _bar(self, sample: SampleLine) -> Table:
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, sample.requests), completed=sample.closed, width=28)
        row.add_row(bar, *self._pace.facts())
        return row

    def _workers(self, sample: SampleLine) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("worker")
        table.add_column("state")
        for title in ("running", "KV", "tok/s", "tok/step", "preempted"):
            table.add_column(title, justify="right")
        for name, worker in sample.workers.items():
            table.add_row(
                escape(name),
                Text(worker.state, style=STATE_STYLES.get(worker.state, "")),
                f"{worker.inflight}/{worker.slots}",
                f"{worker.kv_used:.0%}",
                f"{self._pace.worker_rate(name):,.0f}",
                draft_cell(worker.drafting, DraftMetrics(worker.drafts)),
                f"{worker.preemptions}",
            )
        return table
