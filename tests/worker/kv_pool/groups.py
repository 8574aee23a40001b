"""Shared code of tests of a pool's removal: groups with blocks."""

import os
from pathlib import Path

from openseer_worker.kv_pool.places import group_place

BLOCK, BLOCKS = 4096, 4
"""Bytes of a block, which a disk rounds up to its own; blocks of a group."""
EPOCH = 5


def group(folder: Path, name: str, changed_at: float, epoch: int = EPOCH, version: str = "v1") -> Path:
    """Writes a group's folder with its blocks."""
    place = folder / group_place(epoch, version, name)
    place.mkdir(parents=True)
    for number in range(BLOCKS):
        (place / str(number)).write_bytes(bytes(BLOCK))
    os.utime(place, (changed_at, changed_at))
    return place


def present(*groups: Path) -> list[bool]:
    return [one.exists() for one in groups]
