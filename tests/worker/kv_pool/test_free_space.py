"""Blocks never fill a disk that other programs use."""

import errno
import os
from pathlib import Path

import pytest

from openseer_worker.kv_pool.free_space import LEAST_FREE, LOOK_SECONDS, FreeSpace, missing_room

TOTAL = 1000


class Disk:
    """A disk of TOTAL blocks of 4096 bytes and TOTAL files, with numbers of free ones."""

    free = files = TOTAL
    most_files = TOTAL
    looks = 0

    def ask(self, _folder: Path) -> os.statvfs_result:
        self.looks += 1
        counts = (TOTAL, self.free, self.free, self.most_files, self.files, self.files)
        return os.statvfs_result((4096, 4096, *counts, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "statvfs", disk.ask)
    return disk


def test_a_disk_with_room_is_written_to(disk: Disk, tmp_path: Path) -> None:
    disk.free = int(LEAST_FREE * TOTAL)
    FreeSpace(tmp_path / "new").check()
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("of", ["free", "files"])
def test_a_nearly_full_disk_is_not_written_to(disk: Disk, tmp_path: Path, of: str) -> None:
    setattr(disk, of, int(LEAST_FREE * TOTAL) - 1)
    with pytest.raises(OSError, match=r"4\.9% of its disk are free, 5% must be") as caught:
        FreeSpace(tmp_path).check()
    assert caught.value.errno == errno.ENOSPC


def test_a_disk_without_a_file_count_does_not_lack_files(disk: Disk, tmp_path: Path) -> None:
    disk.files = disk.most_files = 0
    FreeSpace(tmp_path).check()
    assert missing_room(tmp_path, 0.1).files <= 0


def test_free_space_is_checked_at_most_once_per_interval(disk: Disk, tmp_path: Path) -> None:
    now = 50.0
    space = FreeSpace(tmp_path, lambda: now)
    for _ in range(10):
        space.check()
    assert disk.looks == 1
    now += LOOK_SECONDS
    disk.free = 0
    with pytest.raises(OSError, match=r"0\.0%"):
        space.check()


def test_the_real_disk_is_queried(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    room = missing_room(tmp_path, LEAST_FREE)
    assert (room.bytes > 0) == (disk.f_bavail < LEAST_FREE * disk.f_blocks)
    if max(room) <= 0:
        FreeSpace(tmp_path).check()
        return
    with pytest.raises(OSError, match="must be"):
        FreeSpace(tmp_path).check()
