"""Who may write now when all together may write only so often: each asks, and is told how long to wait."""

BURST_SECONDS = 1.0
"""Turns that nobody took are kept for so long."""


class RateLimiter:
    """At most `rate` turns a second over all who ask, in the order in which they first asked. Times in seconds."""

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._next = 0.0
        self._slots: dict[str, float] = {}

    def wait(self, who: str, now: float) -> float:
        """0: the turn is `who`'s, and taken. More: to be asked again after so long."""
        slot = self._slots.get(who)
        if slot is None:
            slot = max(self._next, now - BURST_SECONDS)
            self._next = slot + self._interval
        if slot <= now:
            self._slots.pop(who, None)
            return 0.0
        self._slots[who] = slot
        return slot - now
