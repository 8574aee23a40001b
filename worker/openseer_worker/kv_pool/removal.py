"""Removes groups above a pool's limit of bytes, blocks of earlier epochs of the store, and ended fleets."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from openseer_worker.kv_pool.free_space import LEAST_FREE, DiskRoom, missing_room
from openseer_worker.kv_pool.places import is_left
from openseer_worker.kv_pool.sweeps import UNSWEPT_SECONDS, swept_at

LEFT_SHARE = 0.9
"""Share of its limit to which a sweep reduces a pool that is above the limit."""
STALE_SECONDS = 6 * 3600.0
"""Age of a fleet's last sweep, in seconds, after which other fleets' workers remove its blocks."""
MEASURED_FILES = 16
"""Limit of measured files per group. The largest size counts for all files, since a worker's death may have truncated
some."""

Sizes = dict[str, tuple[int, DiskRoom]]
"""For each group's folder the time of its last change (ns), and its size at that time."""


@dataclass(slots=True)
class _Group:
    path: Path
    changed_at: int
    size: DiskRoom


def sweep(folder: Path, most_bytes: int, epoch: int, known: Sizes | None = None) -> None:
    """Removes blocks of earlier epochs of the store; then groups, the oldest first, until a fleet's folder is within
    `most_bytes` and twice LEAST_FREE of the disk are free.

    `known`: the sizes that the last sweep found, replaced by this sweep's; an unchanged group is not listed again.
    Raises OSError if the folder cannot be read, or is above its limit and no more groups can be removed.
    """
    known = {} if known is None else known
    groups: list[_Group] = []
    for one in _folders(folder):
        if one.name.isdecimal() and int(one.name) < epoch:
            _remove(one)
        # If an epoch's folder could not be removed, the blocks in it count, too.
        groups += [_measured(group, known) for version in _subfolders(one) for group in _subfolders(version)]
    known.clear()
    known.update({str(group.path): (group.changed_at, group.size) for group in groups})
    total = DiskRoom(sum(group.size.bytes for group in groups), sum(group.size.files for group in groups))
    missing = missing_room(folder, 2 * LEAST_FREE)
    most = DiskRoom(min(most_bytes, total.bytes - missing.bytes), total.files - missing.files)
    wanted = DiskRoom(
        *(size if size <= limit else int(LEFT_SHARE * limit) for size, limit in zip(total, most, strict=True))
    )
    for group in sorted(groups, key=lambda one: one.changed_at):
        if total.bytes <= wanted.bytes and total.files <= wanted.files:
            return
        if _remove(group.path):
            total = DiskRoom(total.bytes - group.size.bytes, total.files - group.size.files)
    if total.bytes > most_bytes:
        raise OSError(errno.ENOTEMPTY, f"{total.bytes} bytes of KV blocks are left, and cannot be removed", folder)


class StaleFleets:
    """Detects fleets that ended without cleanup. Clocks may jump, and machines' clocks differ. So a fleet counts as
    ended only if the time of its last sweep is old and does not change for UNSWEPT_SECONDS."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}

    def remove(self, pool: Path) -> None:
        """Removes from a pool the fleets without a sweep for STALE_SECONDS, and the fleets of ended local runs."""
        now, seen = self._clock(), dict[str, tuple[float, float]]()
        for fleet in _subfolders(pool):
            if is_left(fleet):
                _remove(fleet)
                continue
            mark = swept_at(fleet)
            if not 0 < mark < time.time() - STALE_SECONDS:
                continue
            before, since = self._seen.get(fleet.name, (0.0, 0.0))
            seen[fleet.name] = (mark, since if mark == before else now)
            if now - seen[fleet.name][1] > UNSWEPT_SECONDS:
                _remove(fleet)
        self._seen = seen


def _remove(folder: Path) -> bool:
    """Removes a folder; returns False if a part of it is left, for instance files written at the same time."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _subfolders(folder: Path) -> list[Path]:
    """Returns the subfolders; none if the folder cannot be read, so that a bad folder does not prevent the removal of
    others."""
    with suppress(OSError):
        return _folders(folder)
    return []


def _measured(group: Path, known: Sizes) -> _Group:
    """Measures a group's age and size; a group that cannot be read counts as the oldest, so it is removed first."""
    with suppress(OSError):
        changed_at = group.stat().st_mtime_ns
        before, size = known.get(str(group), (-1, DiskRoom(0, 0)))
        return _Group(group, changed_at, size if before == changed_at else _size(group))
    return _Group(group, 0, DiskRoom(0, 0))


def _size(group: Path) -> DiskRoom:
    """Returns the size of a group: its number of blocks times their common size."""
    with os.scandir(group) as entries:
        blocks = list(entries)
    largest = 0
    for block in blocks[:MEASURED_FILES]:
        with suppress(FileNotFoundError):
            found = block.stat(follow_symlinks=False)
            largest = max(largest, found.st_size, found.st_blocks * 512)
    return DiskRoom(len(blocks) * largest, len(blocks))
