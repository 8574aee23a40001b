"""How a worker spends its time while it has the GPU: holding responses, or idle."""


class Usage:
    """Seconds so far. A stretch counts as what it was when it began."""

    def __init__(self) -> None:
        self.idle = self.busy = 0.0
        self._since: float | None = None
        self._was = ""

    def note(self, now: float, *, held: int, asleep: bool) -> None:
        """What the worker does from now on (seconds of one clock)."""
        if self._since is not None and self._was == "busy":
            self.busy += now - self._since
        elif self._since is not None and self._was == "idle":
            self.idle += now - self._since
        self._since = now
        self._was = "asleep" if asleep else "busy" if held else "idle"
