"""Reading and removing a job's row files. All functions may block: call them in threads."""

import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from openseer_core.ids import GroupId
from openseer_store.routed.places import group_folder

STALE_SECONDS = 24 * 3600.0
"""Time, in seconds, for which the rows of a deleted batch stay if some of its groups were carried to another batch."""


def read_files(place: Path, names: Sequence[str], most_bytes: int | None = None) -> list[bytes]:
    """The contents of files in a group's folder. A file's content is empty if the file is missing or unreadable, or if
    it and the files before it exceed `most_bytes`."""
    contents: list[bytes] = []
    for name in names:
        data = b""
        with suppress(OSError):
            if most_bytes is None or (place / name).stat().st_size <= most_bytes - sum(map(len, contents)):
                data = (place / name).read_bytes()
        contents.append(data)
    return contents


def remove_groups(folder: Path, groups: Iterable[GroupId]) -> None:
    """Removes the rows of groups whose results are stored."""
    for group in groups:
        place = group_folder(folder, group)
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            place.parent.rmdir()


def remove_all(folder: Path) -> None:
    """Removes all rows of a job."""
    shutil.rmtree(folder, ignore_errors=True)


def row_batches(folder: Path) -> list[int]:
    """The numbers of the batches that have rows."""
    return [int(name) for name in _names(folder) if name.isdigit()]


def remove_batch(folder: Path, batch: int, *, only_stale: bool) -> None:
    """Removes the rows of a deleted batch. `only_stale`: only the rows of groups that got none within STALE_SECONDS;
    the other groups may continue in another batch."""
    place = folder / str(batch)
    if not only_stale:
        shutil.rmtree(place, ignore_errors=True)
        return
    for group in _names(place):
        with suppress(OSError):
            if (place / group).stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(place / group, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return [entry.name for entry in folder.iterdir()]
    return []
