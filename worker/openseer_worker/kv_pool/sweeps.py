"""Who looks through a fleet's part of a pool, and that somebody does.

A file in the fleet's folder is locked by the worker that looks through it, and has the time when the last look ended.
Pools are bounded by these looks alone: where none ends, be it that one hangs, no block is written any more.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from openseer_worker.kv_pool.places import make_fleet_folder

SWEEP_SECONDS = 5.0
"""How often a worker marks groups that are over, and looks through the pool where no other does."""
UNSWEPT_SECONDS = 60.0
"""A fleet's folder that nobody has looked through for so long takes no more blocks."""
_MARK = ".sweep"


@contextmanager
def alone(folder: Path) -> Generator[bool]:
    """Whether the caller may look through a fleet's folder: nobody else does, or has a moment ago.

    A look that ends without an error is marked. Raises OSError.
    """
    make_fleet_folder(folder)
    with (folder / _MARK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # A mark of the future is of another clock, and says nothing.
        if 0 <= time.time() - os.fstat(file.fileno()).st_mtime < SWEEP_SECONDS / 2:
            yield False
            return
        yield True
        os.utime(file.fileno())


def swept_at(folder: Path) -> float:
    """When the last look ended, by the disk's clock; 0 where none is known."""
    with suppress(OSError):
        return (folder / _MARK).stat().st_mtime
    return 0.0


class Sweeps:
    """Says whether a fleet's folder is looked through. It compares no clocks: it waits for the mark to change."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._mark: float | None = None
        self._changed_at = 0.0

    def check(self) -> None:
        """Raises OSError where no look has ended for UNSWEPT_SECONDS. Asks the disk."""
        now, mark = self._clock(), swept_at(self._folder)
        if mark != self._mark:
            self._mark, self._changed_at = mark, now
        if now - self._changed_at > UNSWEPT_SECONDS:
            raise OSError(
                errno.EBUSY, f"no worker has kept it within its bytes for {UNSWEPT_SECONDS:.0f} s", self._folder
            )
