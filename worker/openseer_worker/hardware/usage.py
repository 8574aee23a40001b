"""How a worker spends its time while it has the GPU: running responses, or idle."""


class Usage:
    """Seconds so far. An interval counts as the state at its begin."""

    def __init__(self) -> None:
        self.idle = self.busy = 0.0
        self._since: float | None = None
        self._state = ""

    def note(self, now: float, *, running: int, asleep: bool) -> None:
        """What the worker does from now on (seconds of one clock)."""
        if self._since is not None and self._state == "busy":
            self.busy += now - self._since
        elif self._since is not None and self._state == "idle":
            self.idle += now - self._since
        self._since = now
        self._state = "asleep" if asleep else "busy" if running else "idle"
