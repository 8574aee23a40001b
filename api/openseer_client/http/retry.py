"""Decides whether and when a failed call is retried: pure functions, without a clock or randomness.

A repeated call of the API has no second effect, so only the time of retries is limited, and not their number.
"""

from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """A kind of failure after which a call is retried."""

    UNREACHABLE = "unreachable"
    """No connection, a broken connection, or 502, 503 or 504, for example while the API restarts."""
    BUSY = "busy"
    """429: the API is busy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a call's retries, in seconds.

    `unreachable`, `busy`: limits from the first failure of the kind. `first_delay` doubles with each failure, up to
    `longest_delay`. Each delay is random between half of this value and the value, so that clients do not retry
    together.
    """

    unreachable: float = 180.0
    busy: float = 3600.0
    first_delay: float = 0.1
    longest_delay: float = 5.0


_STATUSES = {429: Trouble.BUSY, 502: Trouble.UNREACHABLE, 503: Trouble.UNREACHABLE, 504: Trouble.UNREACHABLE}


def trouble_of(status: int) -> Trouble | None:
    """Returns the kind of failure of an HTTP status; None if a retry cannot help."""
    return _STATUSES.get(status)


def retry_after(header: str | None) -> float | None:
    """Returns the seconds of a Retry-After header; None if there is none, or it contains a date."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def delay(
    limits: Limits, trouble: Trouble, *, failures: int, elapsed: float, asked: float | None, draw: float
) -> float | None:
    """Returns the seconds until the next try; None if the limit is reached.

    `failures`: number of consecutive failures, at least 1; `elapsed`: seconds since the first of them; `asked`: seconds
    of Retry-After, or None; `draw`: random number in [0, 1).
    """
    longest = limits.busy if trouble is Trouble.BUSY else limits.unreachable
    left = longest - elapsed
    if left <= 0:
        return None
    # The exponent is limited, because a larger power would overflow a float.
    growing = min(limits.longest_delay, limits.first_delay * 2.0 ** min(failures - 1, 30))
    wanted = max(asked or 0.0, growing * (0.5 + draw / 2))
    return min(wanted, left)
