"""The sweepers, one per backend, which keep a pool within its limit: a fleet's folder, or Mooncake's store."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from openseer_worker.kv_pool import sweeps
from openseer_worker.kv_pool.mooncake.watching import MooncakeSweeper
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.kv_pool.removal import Sizes, StaleFleets, sweep


class Sweeper(Protocol):
    """Removes blocks from a pool of one backend; a call may take long, or hang."""

    def sweep(self, ended: Sequence[str], replaced: Sequence[str]) -> Sequence[str]:
        """Removes the blocks of the versions at the places `replaced`, and, while room is short, those of the groups at
        the places `ended`, in the order of their ends. Returns the handled part of `ended`. Raises OSError.
        """
        ...


class DirectorySweeper:
    """Keeps the blocks in a fleet's `folder` within `most_bytes`, and removes blocks of earlier epochs of the store."""

    def __init__(self, folder: Path, most_bytes: int, epoch: Callable[[], int]) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._epoch = epoch
        self._sizes: Sizes = {}
        self._stale = StaleFleets()

    def sweep(self, ended: Sequence[str], replaced: Sequence[str]) -> Sequence[str]:
        """Marks the folders of `ended` as the oldest, and sweeps unless another worker does; returns all of `ended`.

        Raises OSError.
        """
        for place in ended:
            with suppress(OSError):
                os.utime(self._folder / place, (0, 0))
        for place in replaced:
            shutil.rmtree(self._folder / place, ignore_errors=True)
        with sweeps.alone(self._folder) as alone:
            if alone:
                sweep(self._folder, self._most_bytes, self._epoch(), self._sizes)
        if alone:
            self._stale.remove(self._folder.parent)
        return ended


def open_sweeper(pool: EnginePool, most_bytes: int, epoch: Callable[[], int]) -> Sweeper:
    """Returns the sweeper of a pool. `most_bytes`: limit of a shared directory; Mooncake's store has its own limit."""
    if pool.backend == "mooncake":
        return MooncakeSweeper(pool.master)
    return DirectorySweeper(pool.folder, most_bytes, epoch)
