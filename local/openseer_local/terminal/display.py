"""Displays the progress of a command: redrawn in place in a terminal, plain lines elsewhere.

Errors of the display never end the command: a closed pipe or a broken terminal only ends the display.
"""

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

TICK_SECONDS = 0.25
"""Interval of redraws in a terminal, in seconds."""
PLAIN_EVERY_SECONDS = 5.0
"""Interval of lines without a terminal, in seconds."""


class Display:
    """Shows phases, messages and the content of its subclasses' `body` and `line`.

    `live`: redraws in place (a terminal), else prints a line every few seconds. `quiet`: ended phases are removed, and
    short ones are not shown. `tick_seconds` None: draws only when called (for tests).
    """

    def __init__(
        self,
        console: Console,
        live: bool,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float | None = TICK_SECONDS,
    ) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=quiet) if live else None
        self._quiet = quiet
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._plain_every = PLAIN_EVERY_SECONDS
        self._lock = Lock()
        self._broken = False
        self._stop = Event()
        self._ticker: Thread | None = None
        self._phase = self._detail = ""
        self._phase_at = clock()
        self._printed_at = float("-inf")

    def __enter__(self) -> Self:
        if self._live:
            self._safely(self._live.start)
        if self._tick_seconds is not None:
            self._ticker = Thread(target=self._tick_on, name="display", daemon=True)
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
            elif line := self.line():
                self._plain(line)

    # ---- the content, defined by subclasses

    def body(self) -> list[RenderableType]:
        """The content; empty if there is none."""
        return []

    def line(self) -> str:
        """The content in one line; "" if there is none."""
        return ""

    # ---- called by the command

    def phase(self, text: str) -> None:
        """Begins a phase of the start-up or of the stop, shown with its duration. "": only ends the present phase."""
        with self._lock:
            self._end_phase()
            self._phase, self._phase_at = text, self._clock()
            if text:
                self._printed_at = self._phase_at
                if not self._quiet:
                    self._plain(f"openseer: {text}")
            self._draw()

    def detail(self, text: str) -> None:
        """Sets the phase's progress text; cheap enough to call at every step."""
        self._detail = text

    def message(self, text: str) -> None:
        """Prints a permanent line, such as a worker's death or a signal."""
        with self._lock:
            if self._live:
                self._safely(lambda: self._console.print(Text(text), soft_wrap=True))
            else:
                self._plain(f"openseer: {text}")

    def tick(self) -> None:
        """Updates the display; a thread calls it at intervals."""
        with self._lock:
            self._draw()
            self._plain_if_due()

    # ---- drawing; the caller holds the lock

    def _tick_on(self) -> None:
        while not self._stop.wait(self._tick_seconds) and not self._broken:
            self.tick()

    def _end_phase(self) -> None:
        if not self._phase:
            return
        took = f"{self._phase_text()} ({self._clock() - self._phase_at:.1f} s)"
        self._phase = self._detail = ""
        if self._quiet:
            return
        if self._live:
            self._safely(lambda: self._console.print(Text.assemble(("✓ ", "green"), took)))
        else:
            self._plain(f"openseer: {took}")

    def _phase_text(self) -> str:
        return f"{self._phase}: {self._detail}" if self._detail else self._phase

    def _plain_if_due(self) -> None:
        now = self._clock()
        if self._live or now < self._printed_at + self._plain_every:
            return
        self._printed_at = now
        if self._phase:
            self._plain(f"openseer: {self._phase_text()} … {now - self._phase_at:.0f} s")
        elif line := self.line():
            self._plain(line)

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
            # A closed pipe or file. (rich raises SystemExit on a closed pipe.)
            self._broken = True

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._phase:
            parts.append(Text(f"{self._phase_text()} … {self._clock() - self._phase_at:.0f} s", style="bold"))
        return Group(*parts, *self.body())
