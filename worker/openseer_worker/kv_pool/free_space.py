"""Room on the pool's disk: it may be that of results, of other jobs, or of the machine's memory."""

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

LEAST_FREE = 0.05
"""This part of a disk stays free of KV blocks; groups are removed until twice as much is free."""
LOOK_SECONDS = 1.0
"""How long a look at the disk holds."""


class FreeSpace:
    """Says whether the disk of a folder has room for more blocks."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._looked_at = float("-inf")
        self._share = 1.0

    def check(self) -> None:
        """Raises OSError (ENOSPC) where less than LEAST_FREE of the disk is free, and where it cannot be asked."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._folder.mkdir(parents=True, exist_ok=True)
            usage = shutil.disk_usage(self._folder)
            self._looked_at, self._share = now, usage.free / max(1, usage.total)
        if self._share < LEAST_FREE:
            raise OSError(
                errno.ENOSPC, f"{self._share:.1%} of its disk are free, {LEAST_FREE:.0%} stay so", self._folder
            )
