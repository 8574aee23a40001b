"""What a person sees while a run goes on: a live display in a terminal, plain lines everywhere else.

Nothing here may ever harm the run: a closed pipe or a broken terminal only ends the display.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

TICK_SECONDS = 0.25
PLAIN_EVERY_SECONDS = 5.0
RATE_SECONDS = 15.0
"""Speeds are means over so long: long enough not to flicker, short enough to show a stall."""


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """One worker at one moment; `kv_used` from 0 to 1, `tokens` and `preemptions` since its boot."""

    name: str
    state: str
    inflight: int = 0
    slots: int = 0
    kv_used: float = 0.0
    tokens: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The run at one moment; `closed`: requests that have a result; `tokens`: generated so far."""

    closed: int
    requests: int
    tokens: int
    waiting: int
    inflight: int
    workers: tuple[WorkerProgress, ...] = ()

    @property
    def has_begun(self) -> bool:
        """Whether the start-up is over: something runs, or there is nothing left to run."""
        return self.inflight > 0 or 0 < self.requests <= self.closed

    @property
    def in_tail(self) -> bool:
        """Whether nothing waits any more and some still run."""
        return self.requests > 0 and self.waiting == 0 and self.inflight > 0 and self.closed < self.requests


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
        self._first: tuple[float, ProgressSnapshot] | None = None
        self._recent: deque[tuple[float, ProgressSnapshot]] = deque()
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
            elif self._recent:
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

    def update(self, snapshot: ProgressSnapshot) -> None:
        """How the run stands now; the first one with a request in flight ends the start-up."""
        with self._lock:
            now = self._clock()
            if self._first is None and snapshot.has_begun:
                self._end_phase()
                self._phase, self._first = "", (now, snapshot)
            self._recent.append((now, snapshot))
            while len(self._recent) > 2 and self._recent[1][0] <= now - RATE_SECONDS:
                self._recent.popleft()
            entered_tail = snapshot.in_tail and not self._told_tail
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
        elif self._recent:
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
        if self._recent:
            snapshot = self._recent[-1][1]
            parts += [self._bar(snapshot), self._workers(snapshot)]
        return Group(*parts)

    def _bar(self, snapshot: ProgressSnapshot) -> Table:
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, snapshot.requests), completed=snapshot.closed, width=28)
        row.add_row(bar, *self._facts(snapshot))
        return row

    def _workers(self, snapshot: ProgressSnapshot) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("worker")
        table.add_column("state")
        for title in ("running", "KV", "tok/s", "preempted"):
            table.add_column(title, justify="right")
        for worker in snapshot.workers:
            table.add_row(
                escape(worker.name),
                Text(worker.state, style=_STATE_STYLES.get(worker.state, "")),
                f"{worker.inflight}/{worker.slots}",
                f"{worker.kv_used:.0%}",
                f"{self._worker_rate(worker.name):,.0f}",
                f"{worker.preemptions}",
            )
        return table

    # ---- words and figures

    def _line(self) -> str:
        snapshot = self._recent[-1][1]
        return "openseer: " + "  ".join(self._facts(snapshot, workers=True))

    def _facts(self, snapshot: ProgressSnapshot, *, workers: bool = False) -> list[str]:
        share = int(100 * snapshot.closed / snapshot.requests) if snapshot.requests else 0
        facts = [f"{snapshot.closed}/{snapshot.requests} requests", f"{share} %", f"{self._rate():,.0f} tok/s"]
        if workers:
            count = len(snapshot.workers)
            facts.append(f"{count} worker{'s' if count != 1 else ''}")
        else:
            facts.insert(2, f"{snapshot.tokens:,} tokens")
        facts.append(f"ETA {self._eta(snapshot)}")
        if snapshot.in_tail:
            facts.append(f"tail: the last {snapshot.inflight} are running")
        return facts

    def _rate(self) -> float:
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return max(0.0, (after.tokens - before.tokens) / (now - then)) if now > then else 0.0

    def _worker_rate(self, name: str) -> float:
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        old = next((worker.tokens for worker in before.workers if worker.name == name), 0)
        new = next((worker.tokens for worker in after.workers if worker.name == name), 0)
        return max(0.0, (new - old) / (now - then)) if now > then else 0.0

    def _eta(self, snapshot: ProgressSnapshot) -> str:
        """By the mean speed since the start; a resumed run does not count what was done before."""
        if self._first is None or snapshot.closed == self._first[1].closed:
            return "–"
        since, first = self._first
        left = snapshot.requests - snapshot.closed
        return duration(left * (self._clock() - since) / (snapshot.closed - first.closed))


def duration(seconds: float) -> str:
    """0:48, 12:05, 1:02:03."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


_STATE_STYLES = {"busy": "green", "idle": "dim", "starting": "cyan", "draining": "yellow", "sick": "red"}
