"""Checks the free space of a pool's disk, which may also have results, serve other jobs, or be in the host's memory."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from openseer_worker.kv_pool.places import make_fleet_folder
from openseer_worker.kv_pool.sweeps import Sweeps

LEAST_FREE = 0.05
"""Share of the disk below whose free space no block is written; sweeps remove groups until twice this share is free."""
LOOK_SECONDS = 1.0
"""Validity of a measurement of the disk, in seconds."""


class DiskRoom(NamedTuple):
    """A number of bytes and of files: of a disk, of blocks, or in excess."""

    bytes: int
    files: int


def free_share(folder: Path) -> float:
    """Returns the free share of a folder's disk: of its bytes or of its files, the smaller one. Raises OSError."""
    disk = os.statvfs(folder)
    shares = (disk.f_bavail / max(1, disk.f_blocks), disk.f_favail / disk.f_files if disk.f_files else 1.0)
    return min(shares)


def missing_room(folder: Path, share: float) -> DiskRoom:
    """Returns the bytes and files to remove so that `share` of a folder's disk is free; negative if more is free.

    Raises OSError.
    """
    disk = os.statvfs(folder)
    size = int(share * disk.f_blocks - disk.f_bavail) * disk.f_frsize
    return DiskRoom(size, int(share * disk.f_files - disk.f_favail))  # some file systems report 0 files: no limit


class FreeSpace:
    """Checks whether more may be written to a folder: its disk has room, and a worker sweeps the folder.

    `is_swept`: False for a folder that needs no sweeps.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic, *, is_swept: bool = True) -> None:
        self._folder = folder
        self._clock = clock
        self._looked_at = float("-inf")
        self._share = 1.0
        self._sweeps = Sweeps(folder, clock) if is_swept else None

    def check(self) -> None:
        """Raises OSError: ENOSPC if less than LEAST_FREE of the disk is free, EBUSY if no worker sweeps, another error
        if the disk cannot be read."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            make_fleet_folder(self._folder)
            self._share = free_share(self._folder)
            if self._sweeps is not None:
                self._sweeps.check()
            self._looked_at = now
        if self._share < LEAST_FREE:
            raise OSError(
                errno.ENOSPC, f"{self._share:.1%} of its disk are free, {LEAST_FREE:.0%} must be", self._folder
            )
