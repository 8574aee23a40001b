"""The API server's clock, for comparisons with deletion times and with times that the operator has written."""

import time
from email.utils import parsedate_to_datetime

DATE_SECONDS = 1.0
"""Uncertainty of an answer's header `Date`, in seconds: it is rounded down to whole seconds."""


class ServerClock:
    """The machine's clock with an offset, which is changed as little as the server's answers require.

    So with a wrong clock no pod is deleted too early, all replicas agree, and a right clock never jumps because of a
    header's rounding.
    """

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._offset

    def observe(self, date: str | None, sent: float, received: float) -> None:
        """Takes an answer's header `Date`, None without one, and the times of call and answer by the machine's
        clock."""
        try:
            stated = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = stated - received, stated + DATE_SECONDS - sent
        self._offset = min(max(self._offset, least), most)
