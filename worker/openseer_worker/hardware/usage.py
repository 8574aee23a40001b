"""Measures a worker's time with its GPUs by activity: running responses, or idle, with the reason for idleness."""

from collections import defaultdict
from typing import NamedTuple

from openseer_core.worker.time_metrics import WorkerSeconds


class Usage:
    """The idle and the busy seconds of a worker so far. An interval counts by the state at its beginning; sleep counts
    as neither."""

    def __init__(self) -> None:
        self.idle = self.busy = 0.0
        self._since: float | None = None
        self._state = ""

    def note(self, now: float, *, running: int, asleep: bool) -> tuple[float, float]:
        """Notes the state from `now` on (seconds of one clock); returns the idle and the busy seconds until `now`."""
        if self._since is not None and self._state == "busy":
            self.busy += now - self._since
        elif self._since is not None and self._state == "idle":
            self.idle += now - self._since
        self._since = now
        self._state = "asleep" if asleep else "busy" if running else "idle"
        return round(self.idle, 3), round(self.busy, 3)


class Doing(NamedTuple):
    """A worker's activity at one time. `running`: responses in its engine, which has `slots`; `calls`: its loop awaits
    the store; `wants`: requests may wait in the queue, or responses have ended; `changes`: it claims no request because
    of its weights."""

    running: int
    slots: int
    calls: bool
    wants: bool
    changes: bool


class TimeSpent:
    """The seconds of a worker so far, by activity. An interval counts by the activity at its beginning."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._since = 0.0
        self._doing: Doing | None = None

    @property
    def calls(self) -> bool:
        """`Doing.calls` of the last note."""
        return self._doing is not None and self._doing.calls

    def note(self, now: float, doing: Doing) -> None:
        """Notes the activity from `now` on (seconds of one clock)."""
        if (before := self._doing) is not None:
            self._add(before, now - self._since)
        self._since, self._doing = now, doing

    def metrics(self) -> dict[str, float | int | str]:
        """Returns the seconds by activity, for heartbeats."""
        return WorkerSeconds.of(self._sums).metrics()

    def _add(self, doing: Doing, seconds: float) -> None:
        sums = self._sums
        if doing.running:
            sums["running"] += seconds
            sums["responses"] += seconds * doing.running
        elif doing.changes:
            sums["weights"] += seconds
            return
        if doing.calls and doing.wants and doing.running < doing.slots:
            sums["store_below" if doing.running else "store_idle"] += seconds
