"""The API server's clock, for comparisons with deletion times and with times written by the operator."""

import time
from email.utils import parsedate_to_datetime

DATE_SECONDS = 1.0
"""Uncertainty of the header `Date` of an answer, in seconds: the server rounds it down to whole seconds."""


class ServerClock:
    """The machine's clock plus an offset. An answer of the server changes the offset only if it lies outside the bounds
    that follow from the answer.

    So a wrong clock of the machine deletes no pod too early, and all replicas agree. The rounding of the header does
    not move a correct clock.
    """

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._offset

    def observe(self, date: str | None, sent: float, received: float) -> None:
        """Corrects the offset by an answer. `date`: its header `Date`, None without one; `sent`, `received`: times of
        call and answer on the machine's clock, in seconds since the epoch."""
        try:
            stated = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = stated - received, stated + DATE_SECONDS - sent
        self._offset = min(max(self._offset, least), most)
