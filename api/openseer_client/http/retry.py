"""When a failed call is retried: pure decisions, without a clock or randomness.

Every call of the API may be repeated without a second effect, so only time limits retries.
"""

from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """Why a call may be made again."""

    UNREACHABLE = "unreachable"
    """No connection, a broken one, or a gateway's 502, 503 or 504: a restarting API, say."""
    BUSY = "busy"
    """429: the API is busy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a call is tried, in seconds.

    `unreachable` and `busy`: from the first failure of that kind. `first_delay` doubles with each failure, up to
    `longest_delay`; each delay is drawn between its half and its whole, so that many clients do not come at once.
    """

    unreachable: float = 180.0
    busy: float = 3600.0
    first_delay: float = 0.1
    longest_delay: float = 5.0


_STATUSES = {429: Trouble.BUSY, 502: Trouble.UNREACHABLE, 503: Trouble.UNREACHABLE, 504: Trouble.UNREACHABLE}


def trouble_of(status: int) -> Trouble | None:
    """The trouble that an HTTP status tells of; None for one that a repetition does not help."""
    return _STATUSES.get(status)


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; None without one (a date is not understood)."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def delay(
    limits: Limits, trouble: Trouble, *, failures: int, elapsed: float, asked: float | None, draw: float
) -> float | None:
    """Seconds until the next try, None to give up.

    `failures`: so far in a row, at least one; `elapsed`: seconds since the first of them; `asked`: Retry-After;
    `draw`: in [0, 1).
    """
    longest = limits.busy if trouble is Trouble.BUSY else limits.unreachable
    left = longest - elapsed
    if left <= 0:
        return None
    # Beyond 2^30 the delay has long been the longest; the power would overflow a float.
    growing = min(limits.longest_delay, limits.first_delay * 2.0 ** min(failures - 1, 30))
    wanted = max(asked or 0.0, growing * (0.5 + draw / 2))
    return min(wanted, left)
