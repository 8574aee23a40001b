"""What a person sees while a run goes on: a live display in a terminal, plain lines everywhere else.

Nothing here may ever harm the run: a closed pipe or a broken terminal only ends the display.
"""

import time
from collections.abc import Callable
from threading import Event, Lock, Thread

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from openseer_driver.pace import Pace
from openseer_driver.run_lines import SampleLine

TICK_SECONDS = 0.25
PLAIN_EVERY_SECONDS = 5.0


class Progress:
    """Shows phases, then the run. `live`: redraw in place (a terminal), else a line every few seconds.

    `tick_seconds` None: nothing is drawn but by calls (tests do that).
    """

    def __init__(
        self,
        console: Console,
        live: bool,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float | None = TICK_SECONDS,
    ) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if live else None
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._lock = Lock()
        self._broken = False
        self._stop = Event()
        self._ticker: Thread | None = None
        self._phase = ""
        self._phase_at = clock()
        self._pace = Pace()
        self._printed_at = float("-inf")
        self._told_tail = False

    def __enter__(self) -> "Progress":
        if self._live:
            self._safely(self._live.start)
        if self._tick_seconds is not None:
            self._ticker = Thread(target=self._tick_on, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._ticker:
            self._ticker.join(timeout=2.0)
        with self._lock:
            if self._live:
                self._draw()
                self._safely(self._live.stop)
            elif self._pace.latest:
                self._plain(self._line())

    # ---- what the run tells

    def phase(self, text: str) -> None:
        """A step of the start-up or the end begins; how long it takes is shown beside it. Empty: the run goes on."""
        with self._lock:
            self._end_phase()
            self._phase, self._phase_at = text, self._clock()
            if text:
                self._printed_at = self._phase_at
                self._plain(f"openseer: {text}")
            self._draw()

    def update(self, sample: SampleLine) -> None:
        """How the run stands now; the first one with a request in flight ends the start-up."""
        with self._lock:
            if sample.has_begun and not self._pace.has_begun:
                self._end_phase()
                self._phase = ""
            self._pace.take(sample, self._clock())
            entered_tail = sample.in_tail and not self._told_tail
            self._told_tail = self._told_tail or entered_tail
            if entered_tail:
                self._printed_at = float("-inf")
            self._draw()
            self._plain_if_due()

    def message(self, text: str) -> None:
        """One line that stays: a worker died, a signal came."""
        with self._lock:
            if self._live:
                self._safely(lambda: self._console.print(Text(text)))
            else:
                self._plain(f"openseer: {text}")

    def tick(self) -> None:
        """Brings what is shown up to date; a thread does that by itself."""
        with self._lock:
            self._draw()
            self._plain_if_due()

    # ---- drawing

    def _tick_on(self) -> None:
        while not self._stop.wait(self._tick_seconds) and not self._broken:
            self.tick()

    def _end_phase(self) -> None:
        if not self._phase:
            return
        took = f"{self._phase} ({self._clock() - self._phase_at:.1f} s)"
        if self._live:
            self._safely(lambda: self._console.print(Text.assemble(("✓ ", "green"), took)))
        else:
            self._plain(f"openseer: {took}")

    def _plain_if_due(self) -> None:
        now = self._clock()
        if self._live or now < self._printed_at + PLAIN_EVERY_SECONDS:
            return
        self._printed_at = now
        if self._phase:
            self._plain(f"openseer: {self._phase} … {now - self._phase_at:.0f} s")
        elif self._pace.latest:
            self._plain(self._line())

    def _plain(self, line: str) -> None:
        if not self._live:
            self._safely(lambda: self._console.print(line, markup=False, highlight=False, soft_wrap=True))

    def _draw(self) -> None:
        live = self._live
        if live:
            self._safely(lambda: live.update(self._picture(), refresh=True))

    def _safely(self, act: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            act()
        except (OSError, ValueError, SystemExit):
            # A closed pipe or file: there is nobody left to tell. (rich ends the program on a closed pipe.)
            self._broken = True

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._phase:
            parts.append(Text(f"{self._phase} … {self._clock() - self._phase_at:.0f} s", style="bold"))
        sample = self._pace.latest
        if sample:
            parts += [self._bar(sample), self._workers(sample)]
        return Group(*parts)

    def _bar(self, sample: SampleLine) -> Table:
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, sample.requests), completed=sample.closed, width=28)
        row.add_row(bar, *self._pace.facts(self._clock()))
        return row

    def _workers(self, sample: SampleLine) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("worker")
        table.add_column("state")
        for title in ("running", "KV", "tok/s", "preempted"):
            table.add_column(title, justify="right")
        for name, worker in sample.workers.items():
            table.add_row(
                escape(name),
                Text(worker.state, style=_STATE_STYLES.get(worker.state, "")),
                f"{worker.inflight}/{worker.slots}",
                f"{worker.kv_used:.0%}",
                f"{self._pace.worker_rate(name):,.0f}",
                f"{worker.preemptions}",
            )
        return table

    # ---- words and figures

    def _line(self) -> str:
        return "openseer: " + "  ".join(self._pace.facts(self._clock(), workers=True))


_STATE_STYLES = {"busy": "green", "idle": "dim", "starting": "cyan", "draining": "yellow", "sick": "red"}
