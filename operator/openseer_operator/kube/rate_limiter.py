"""Limits how often all jobs together write: each asks, and gets how long it has to wait."""

BURST_SECONDS = 1.0
"""Slots that nobody took are kept for so long."""


class RateLimiter:
    """At most `rate` slots a second over all names, in the order of their first calls. Times in seconds."""

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._next = 0.0
        self._slots: dict[str, float] = {}

    def wait(self, name: str, now: float) -> float:
        """0: the slot is `name`'s, and taken. More: to be called again after so long."""
        slot = self._slots.get(name)
        if slot is None:
            slot = max(self._next, now - BURST_SECONDS)
            self._next = slot + self._interval
        if slot <= now:
            self._slots.pop(name, None)
            return 0.0
        self._slots[name] = slot
        return slot - now
