"""Blocks never fill the disk that others need."""

import errno
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from openseer_worker.kv_pool import free_space
from openseer_worker.kv_pool.free_space import LEAST_FREE, LOOK_SECONDS, FreeSpace

TOTAL = 1000


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    free = TOTAL
    looks = 0

    def usage(self, _folder: Path) -> Usage:
        self.looks += 1
        return Usage(TOTAL, TOTAL - self.free, self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(free_space.shutil, "disk_usage", disk.usage)
    return disk


def test_a_disk_with_room_is_written_to(disk: Disk, tmp_path: Path) -> None:
    disk.free = int(LEAST_FREE * TOTAL)
    FreeSpace(tmp_path / "new").check()
    assert (tmp_path / "new").is_dir()


def test_a_disk_that_is_nearly_full_is_left_alone(disk: Disk, tmp_path: Path) -> None:
    disk.free = int(LEAST_FREE * TOTAL) - 1
    with pytest.raises(OSError, match=r"4\.9% of its disk are free, 5% stay so") as caught:
        FreeSpace(tmp_path).check()
    assert caught.value.errno == errno.ENOSPC


def test_it_looks_no_more_often_than_it_must(disk: Disk, tmp_path: Path) -> None:
    now = 50.0
    space = FreeSpace(tmp_path, lambda: now)
    for _ in range(10):
        space.check()
    assert disk.looks == 1
    now += LOOK_SECONDS
    disk.free = 0
    with pytest.raises(OSError, match=r"0\.0%"):
        space.check()


def test_the_real_disk_is_asked(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    if usage.free >= LEAST_FREE * usage.total:
        FreeSpace(tmp_path).check()
        return
    with pytest.raises(OSError, match="stay so"):
        FreeSpace(tmp_path).check()
