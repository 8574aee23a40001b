"""What is removed of a job's rows, and when. All of it may block: it is for threads."""

import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from openseer_core.ids import GroupId
from openseer_store.routed.places import group_folder

STALE_SECONDS = 24 * 3600.0
"""Rows of a batch that is gone stay so long where groups of it were carried to another one."""


def remove_groups(folder: Path, groups: Iterable[GroupId]) -> None:
    """Removes the rows of groups whose results are safe."""
    for group in groups:
        place = group_folder(folder, group)
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            place.parent.rmdir()


def remove_all(folder: Path) -> None:
    """Removes all rows of a job."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_batches(folder: Path, is_gone: Callable[[int], bool], carried: Callable[[int], bool]) -> None:
    """Removes the rows of batches that are gone; of one of which groups were carried on only once they are stale."""
    for name in _names(folder):
        if not name.isdigit() or not is_gone(int(name)):
            continue
        batch = folder / name
        if not carried(int(name)):
            shutil.rmtree(batch, ignore_errors=True)
            continue
        for group in _names(batch):
            with suppress(OSError):
                if (batch / group).stat().st_mtime < time.time() - STALE_SECONDS:
                    shutil.rmtree(batch / group, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return [entry.name for entry in folder.iterdir()]
    return []
