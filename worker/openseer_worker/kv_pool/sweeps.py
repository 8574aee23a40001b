"""Ensures that one worker at a time sweeps a fleet's folder, and that blocks are written only while sweeps take place.

The worker that sweeps locks a file in the fleet's folder; the file's time is the end of the last sweep. Only sweeps
limit a pool's size: if no sweep ends, for instance because one hangs, workers stop writing blocks.
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
"""Interval at which a worker marks ended groups, and sweeps unless another worker does, in seconds."""
UNSWEPT_SECONDS = 60.0
"""Age of the last sweep after which no more blocks are written to a fleet's folder, in seconds."""
_MARK = ".sweep"


@contextmanager
def alone(folder: Path) -> Generator[bool]:
    """Yields whether the caller may sweep a fleet's folder: no other worker sweeps it, or has within SWEEP_SECONDS / 2.

    If the sweep, in the context, ends without an error, its end is marked. Raises OSError.
    """
    make_fleet_folder(folder)
    with (folder / _MARK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # A mark in the future is another clock's, and is ignored.
        if 0 <= time.time() - os.fstat(file.fileno()).st_mtime < SWEEP_SECONDS / 2:
            yield False
            return
        yield True
        os.utime(file.fileno())


def swept_at(folder: Path) -> float:
    """Returns the end of the last sweep, in seconds since 1970 by the disk's clock; 0 without a sweep."""
    with suppress(OSError):
        return (folder / _MARK).stat().st_mtime
    return 0.0


class Sweeps:
    """Detects whether a fleet's folder is being swept: its mark has to change, so that no clocks are compared."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._mark: float | None = None
        self._changed_at = 0.0

    def check(self) -> None:
        """Reads the mark from the disk. Raises OSError if no sweep has ended for UNSWEPT_SECONDS."""
        now, mark = self._clock(), swept_at(self._folder)
        if mark != self._mark:
            self._mark, self._changed_at = mark, now
        if now - self._changed_at > UNSWEPT_SECONDS:
            raise OSError(
                errno.EBUSY, f"no worker has kept it within its bytes for {UNSWEPT_SECONDS:.0f} s", self._folder
            )
