"""Decides when a failed call is retried: pure functions, without a clock or randomness.

Every call of the API may be repeated without a second effect, so retries are limited by time alone.
"""

from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """Why a call may be retried."""

    UNREACHABLE = "unreachable"
    """No connection, a broken one, or a gateway's 502, 503 or 504: a restarting API, say."""
    BUSY = "busy"
    """429: the API is busy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a call's retries, in seconds.

    `unreachable` and `busy`: from the first failure of that kind. `first_delay` doubles with each failure, up to
    `longest_delay`; each delay is random between its half and its whole, so that clients do not retry together.
    """

    unreachable: float = 180.0
    busy: float = 3600.0
    first_delay: float = 0.1
    longest_delay: float = 5.0


_STATUSES = {429: Trouble.BUSY, 502: Trouble.UNREACHABLE, 503: Trouble.UNREACHABLE, 504: Trouble.UNREACHABLE}


def trouble_of(status: int) -> Trouble | None:
    """The trouble of an HTTP status; None for a status that a retry does not help."""
    return _STATUSES.get(status)


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header; None without one (a date is ignored)."""
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
    # Beyond 2^30 the delay is the longest already; a larger power would overflow a float.
    growing = min(limits.longest_delay, limits.first_delay * 2.0 ** min(failures - 1, 30))
    wanted = max(asked or 0.0, growing * (0.5 + draw / 2))
    return min(wanted, left)
