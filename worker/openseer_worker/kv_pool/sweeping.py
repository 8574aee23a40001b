"""What is removed of a shared directory: groups that are over first, then those unused for longest.

Any worker may look through the pool; a lock on a file there has one do it at a time.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from openseer_worker.kv_pool.free_space import LEAST_FREE

LEFT_SHARE = 0.9
"""A pool that is over its bytes is brought down to this part of them."""
STALE_SECONDS = 6 * 3600.0
"""Blocks of a fleet whose workers have not looked through them for so long are removed by those of others."""
GRACE_SECONDS = 60.0
"""How long blocks of the store's earlier epochs stay: other workers may need them still."""
_LOCK_FILE = ".sweep"


class DirectorySweeper:
    """Keeps the blocks of a fleet's `folder` within `most_bytes`, and removes those of earlier epochs of the store."""

    def __init__(self, folder: Path, most_bytes: int, epoch: Callable[[], int]) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._epoch = epoch

    def sweep(self, ended: Sequence[str], leaving: Sequence[str]) -> Sequence[str]:
        """Gives all of `ended`: that they are over is told by their folders' time. Raises OSError."""
        for place in ended:
            with suppress(OSError):
                os.utime(self._folder / place, (0, 0))
        for place in leaving:
            shutil.rmtree(self._folder / place, ignore_errors=True)
        with _alone(self._folder) as alone:
            if alone:
                sweep(self._folder, self._most_bytes, self._epoch())
                remove_stale_fleets(self._folder.parent)
        return ended


def sweep(folder: Path, most_bytes: int, epoch: int) -> None:
    """Removes blocks of earlier epochs of the store, and groups until a fleet's folder is within its bytes, and until
    twice LEAST_FREE of the disk are free.

    Raises OSError where the folder cannot be read; what cannot be removed stays.
    """
    for earlier in _folders(folder):
        if earlier.name != str(epoch) and _changed_at(earlier) < time.time() - GRACE_SECONDS:
            shutil.rmtree(earlier, ignore_errors=True)
    groups = sorted(
        (_changed_at(group), _size(group), group)
        for version in _folders(folder / str(epoch))
        for group in _folders(version)
    )
    total, disk = sum(size for _, size, _ in groups), shutil.disk_usage(folder)
    most_bytes = min(most_bytes, int(total + disk.free - 2 * LEAST_FREE * disk.total))
    if total <= most_bytes:
        return
    for _, size, group in groups:
        shutil.rmtree(group, ignore_errors=True)
        total -= size
        if total <= LEFT_SHARE * most_bytes:
            return


def remove_stale_fleets(pool: Path) -> None:
    """Removes what fleets have left that ended without a word: those whose folder nobody has swept for long."""
    for fleet in _folders(pool):
        swept_at = _changed_at(fleet / _LOCK_FILE)
        if 0 < swept_at < time.time() - STALE_SECONDS:
            shutil.rmtree(fleet, ignore_errors=True)


def _folders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return


def _changed_at(folder: Path) -> float:
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0


def _size(group: Path) -> int:
    """Bytes of a group's blocks, by their number: all have the size of the first."""
    with suppress(FileNotFoundError):
        with os.scandir(group) as entries:
            blocks = list(entries)
        return len(blocks) * blocks[0].stat().st_size if blocks else 0
    return 0


@contextmanager
def _alone(folder: Path) -> Generator[bool]:
    """Whether nobody else looks through the pool now."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.utime(file.fileno())
        yield True
