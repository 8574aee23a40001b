"""The API server's clock: what deletion times, and the times that the operator itself wrote, are compared with."""

import time
from email.utils import parsedate_to_datetime

DATE_SECONDS = 1.0
"""What the header `Date` of an answer leaves open: it tells whole seconds, rounded down."""


class ServerClock:
    """Our own clock, moved as little as the server's answers ask for.

    So a wrong clock of ours takes no pod away too early, two replicas of the operator agree, and a right one never
    jumps for the rounding of a header.
    """

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._offset

    def observe(self, date: str | None, sent: float, received: float) -> None:
        """An answer's header `Date`, None when it has none; when its call was sent and answered, by our own clock."""
        try:
            told = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = told - received, told + DATE_SECONDS - sent
        self._offset = min(max(self._offset, least), most)
