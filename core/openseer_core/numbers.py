"""Numbers that a store issues; no number is issued twice, even after the store has lost its last writes.

A store that restarts from an older log, or fails over to a lagging replica, has lost its last numbers. So each process
of the store's server has an epoch of its own, and the numbers of a later epoch are above all numbers of earlier ones:
an epoch is the start time in milliseconds, and a store issues fewer than NUMBERS_PER_MILLISECOND numbers per
millisecond.
In a job's first epoch the base is 0, so that numbers stay small until the store restarts. Fences, which users do not
see, use the epoch's base from the first epoch on: if a store restarts empty, its first client may take the epoch for
the job's first one, while workers still hold fences of the earlier epoch.
"""

NUMBERS_PER_MILLISECOND = 4096
"""Limit of numbers of one kind per millisecond; with it numbers stay exact in a double (2^53) until the year 2094."""
EPOCHS_BEGIN = 1_735_689_600
"""Time zero of epochs: 2025-01-01 UTC, in seconds since 1970."""
FIRST_BASE = 0
"""Base of the numbers in a job's first epoch."""
SETBACK = 2**20
"""Milliseconds (17 minutes) added to the latest epoch if the server's clock does not show a later time."""


def next_epoch(last: int, wall: float) -> int:
    """The epoch of a process that starts at `wall` (seconds since 1970). `last`: the latest known epoch."""
    epoch = int((wall - EPOCHS_BEGIN) * 1000)
    return epoch if epoch > last else last + SETBACK


def base_of(epoch: int) -> int:
    """The base of an epoch other than the job's first: all numbers of the epoch are above it."""
    return epoch * NUMBERS_PER_MILLISECOND


def issue(last: int, base: int) -> int:
    """The number after `last`, in an epoch with this base."""
    return max(last, base) + 1
