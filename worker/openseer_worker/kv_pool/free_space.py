"""DiskRoom on the pool's disk: it may be that of results, of other jobs, or of the machine's memory."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from openseer_worker.kv_pool.places import make_fleet_folder
from openseer_worker.kv_pool.sweeps import Sweeps

LEAST_FREE = 0.05
"""This part of a disk stays free of KV blocks; groups are removed until twice as much is free."""
LOOK_SECONDS = 1.0
"""How long a look at the disk holds."""


class DiskRoom(NamedTuple):
    """Bytes and files: of a disk, of blocks, or those that are too many."""

    bytes: int
    files: int


def free_share(folder: Path) -> float:
    """The part of a folder's disk that is free, by bytes or by files, whichever is less. Raises OSError."""
    disk = os.statvfs(folder)
    shares = (disk.f_bavail / max(1, disk.f_blocks), disk.f_favail / disk.f_files if disk.f_files else 1.0)
    return min(shares)


def missing_room(folder: Path, share: float) -> DiskRoom:
    """What would have to go until `share` of a folder's disk is free; negative where more is. Raises OSError."""
    disk = os.statvfs(folder)
    size = int(share * disk.f_blocks - disk.f_bavail) * disk.f_frsize
    return DiskRoom(size, int(share * disk.f_files - disk.f_favail))  # some disks count no files, and have no limit


class FreeSpace:
    """Says whether a fleet's folder takes more: its disk has room, and somebody keeps it within its bytes.

    `is_swept`: False for a folder that nobody is to look through.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic, *, is_swept: bool = True) -> None:
        self._folder = folder
        self._clock = clock
        self._looked_at = float("-inf")
        self._share = 1.0
        self._sweeps = Sweeps(folder, clock) if is_swept else None

    def check(self) -> None:
        """Raises OSError: ENOSPC where less than LEAST_FREE of the disk is free, EBUSY where nobody sweeps, and others
        where the disk cannot be asked."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            make_fleet_folder(self._folder)
            self._share = free_share(self._folder)
            if self._sweeps is not None:
                self._sweeps.check()
            self._looked_at = now
        if self._share < LEAST_FREE:
            raise OSError(
                errno.ENOSPC, f"{self._share:.1%} of its disk are free, {LEAST_FREE:.0%} stay so", self._folder
            )
