"""Numbers that a store issues: none is issued twice, even after the store has lost its last writes.

A store that restarts from an older log, or fails over to a lagging replica, has forgotten its last numbers. So
each process of the server has an epoch of its own, and numbers of a later epoch are above all numbers of an earlier
one: an epoch is its start time in milliseconds, and a store issues fewer numbers than
NUMBERS_PER_MILLISECOND per millisecond.
In a job's first epoch the base is 0, so that numbers stay small until the store restarts. Only fences, which users do
not see, have the epoch's base there too: the first client of a store that comes back empty may not know of the earlier
one, while workers still hold its fences.
"""

NUMBERS_PER_MILLISECOND = 4096
"""Limit of numbers of one kind per millisecond. Numbers stay exact in a double (2^53) until the year 2094."""
EPOCHS_BEGIN = 1_735_689_600
"""2025-01-01 UTC, in seconds since 1970."""
FIRST_BASE = 0
SETBACK = 2**20
"""Epochs skipped (milliseconds: 17 minutes) if the server's clock shows less than the latest epoch."""


def next_epoch(last: int, wall: float) -> int:
    """The epoch that begins at `wall` (seconds since 1970). `last`: the greatest known one."""
    epoch = int((wall - EPOCHS_BEGIN) * 1000)
    return epoch if epoch > last else last + SETBACK


def base_of(epoch: int) -> int:
    """The base of an epoch's numbers, unless it is the job's first: all are above it."""
    return epoch * NUMBERS_PER_MILLISECOND


def issue(last: int, base: int) -> int:
    """The number after `last` in an epoch of that base."""
    return max(last, base) + 1
