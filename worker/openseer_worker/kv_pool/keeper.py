"""A worker's part in keeping a pool within its bytes: where groups lie, which of them are over, what is removed.

Removed first are groups that are over, then those unused for longest. Any worker may look through the pool; a lock on a
file there has one do it at a time. All of it runs in a thread, beside the worker's loop, and nobody waits for it.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openseer_worker.kv_pool.daemons import DaemonThreads
from openseer_worker.kv_pool.free_space import LEAST_FREE
from openseer_worker.kv_pool.places import EnginePool, group_place, version_place

log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
"""How often a worker marks groups that are over, and looks through the pool where no other does."""
LEFT_SHARE = 0.9
"""A pool that is over its bytes is brought down to this part of them."""
GRACE_SECONDS = 60.0
"""How long blocks of replaced weights, and of the store's earlier epochs, stay: other workers may need them still."""
STALE_SECONDS = 6 * 3600.0
"""Blocks of a fleet whose workers have not looked through them for so long are removed by those of others."""
MOST_ENDED = 10_000
"""Groups whose end is noted until the next sweep, at most; others are removed by their age."""
_LOCK_FILE = ".sweep"


class PoolKeeper:
    """`pool`: None without one. `most_bytes`: of the blocks of all its workers. `epoch`: the store's now."""

    def __init__(self, pool: EnginePool | None, most_bytes: int, epoch: Callable[[], int]) -> None:
        self._folder = None if pool is None else pool.folder
        self._most_bytes = most_bytes
        self._epoch = epoch
        self._weights: str | None = None
        self._ended: set[str] = set()
        self._leaving: dict[str, float] = {}
        self._thread = DaemonThreads(1, "openseer-kv-sweep")

    @property
    def is_on(self) -> bool:
        """Whether there is a pool."""
        return self._folder is not None

    def place(self, group: str, version: str, weights: str) -> str:
        """The folder of a group's blocks with weights of `version`; "" without a pool. `weights`: the engine's own."""
        if self._folder is None:
            return ""
        if self._weights not in (None, weights):
            self._leaving[version_place(self._epoch(), self._weights or "")] = time.monotonic() + GRACE_SECONDS
        self._weights = weights
        return group_place(self._epoch(), version, group)

    def end(self, group: str, version: str) -> None:
        """A group is over: its blocks are among the first to go. They stay while there is room, for a next turn."""
        if self._folder is not None and len(self._ended) < MOST_ENDED:
            self._ended.add(group_place(self._epoch(), version, group))

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while self._folder is not None:
            await asyncio.sleep(SWEEP_SECONDS)
            ended, self._ended = self._ended, set()
            now = time.monotonic()
            leaving = [place for place, due in self._leaving.items() if due <= now]
            for place in leaving:
                del self._leaving[place]
            await asyncio.wrap_future(self._thread.submit(self._sweep, self._folder, ended, leaving))

    def _sweep(self, folder: Path, ended: set[str], leaving: list[str]) -> None:
        for place in ended:
            with suppress(OSError):
                os.utime(folder / place, (0, 0))
        for place in leaving:
            shutil.rmtree(folder / place, ignore_errors=True)
        try:
            with _alone(folder) as alone:
                if alone:
                    sweep(folder, self._most_bytes, self._epoch())
                    remove_stale_fleets(folder.parent)
        except OSError as error:
            log.warning("the KV pool is not swept: %s", error)


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
