"""Numbers that a store issues: none is given twice, also where the store lost its last writes.

A store that restarts from an older log, or fails over to a replica that lags, has forgotten what it issued last. So
each process of the server has an epoch of its own, and numbers of a later epoch begin above all that an earlier one can
have issued: an epoch is the time at which it began, in milliseconds, and no store issues NUMBERS_PER_MILLISECOND. In a
job's first epoch the base is 0, so that numbers stay small until the store restarts. Only of fences, which no person
reads, it is that of the epoch there, too: a store that comes back empty may be met first by somebody who knows nothing
of the one before, while others still hold its fences.
"""

NUMBERS_PER_MILLISECOND = 4096
"""More than a store issues of one kind in that time. Numbers stay exact in a double (2^53) until the year 2094."""
EPOCHS_BEGIN = 1_735_689_600
"""2025-01-01 UTC, in seconds since 1970."""
FIRST_BASE = 0
SETBACK = 2**20
"""Epochs that are left out (milliseconds: 17 minutes) where the server's clock shows less than the latest epoch."""


def next_epoch(last: int, wall: float) -> int:
    """The epoch that begins at `wall` (seconds since 1970). `last`: the greatest that anybody knows of."""
    epoch = int((wall - EPOCHS_BEGIN) * 1000)
    return epoch if epoch > last else last + SETBACK


def base_of(epoch: int) -> int:
    """What every number of an epoch is above, unless it is the job's first."""
    return epoch * NUMBERS_PER_MILLISECOND


def issue(last: int, base: int) -> int:
    """The number that follows `last` in an epoch of that base."""
    return max(last, base) + 1
