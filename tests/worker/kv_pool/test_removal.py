"""Removal from a pool, and its order."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openseer_worker.kv_pool import removal
from openseer_worker.kv_pool.free_space import DiskRoom
from openseer_worker.kv_pool.places import hold_fleet_folder
from openseer_worker.kv_pool.removal import STALE_SECONDS, Sizes, StaleFleets, sweep
from openseer_worker.kv_pool.sweeps import UNSWEPT_SECONDS
from tests.worker.kv_pool.groups import BLOCK, BLOCKS, EPOCH, group, present

GROUP = BLOCKS * BLOCK


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> list[DiskRoom]:
    """The room that the disk lacks; none unless a test sets it."""
    room = [DiskRoom(-(2**50), -(2**50))]

    def missing(_folder: Path, _share: float) -> DiskRoom:
        return room[0]

    monkeypatch.setattr(removal, "missing_room", missing)
    return room


def aged(folder: Path, *ages: float) -> list[Path]:
    """Groups last used so many seconds ago."""
    return [group(folder, str(number), time.time() - age) for number, age in enumerate(ages)]


def test_a_pool_within_its_bytes_keeps_all_groups(tmp_path: Path) -> None:
    groups = aged(tmp_path, 1e6, 5, 0)
    sweep(tmp_path, 3 * GROUP, EPOCH)
    assert all(present(*groups))


def test_the_longest_unused_groups_are_removed_until_there_is_room(tmp_path: Path) -> None:
    groups = aged(tmp_path, 10, 20, 0)
    sweep(tmp_path, 3 * GROUP - 1, EPOCH)
    assert present(*groups) == [True, False, True]


@pytest.mark.parametrize("missing", [DiskRoom(1, -9), DiskRoom(-9, 1)])
def test_groups_are_removed_for_a_disk_that_lacks_room(tmp_path: Path, room: list[DiskRoom], missing: DiskRoom) -> None:
    groups = aged(tmp_path, 10, 20, 0)
    room[0] = missing
    sweep(tmp_path, 10**9, EPOCH)
    assert present(*groups) == [True, False, True]


def test_on_a_disk_filled_by_others_no_group_is_kept(tmp_path: Path, room: list[DiskRoom]) -> None:
    groups = aged(tmp_path, 10, 0)
    room[0] = DiskRoom(10**9, 10**9)
    sweep(tmp_path, 10**9, EPOCH)
    assert not any(present(*groups))


def test_a_truncated_file_does_not_reduce_a_groups_size(tmp_path: Path) -> None:
    groups = aged(tmp_path, 10, 0)
    for one in groups:
        names = [entry.name for entry in os.scandir(one)]
        (one / names[0]).write_bytes(b"")  # left behind by a killed worker
    sweep(tmp_path, 2 * GROUP - 1, EPOCH)
    assert present(*groups) == [False, True]


def test_an_unreadable_group_does_not_stop_the_removal_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = aged(tmp_path, 10, 0)
    broken = group(tmp_path, "broken", time.time() - 5)
    real = os.scandir

    def scan(folder: Path | str | int) -> object:
        if folder == broken:
            raise OSError(5, "Input/output error")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scan)
    sweep(tmp_path, 2 * GROUP - 1, EPOCH)
    assert present(old, new) == [False, True]


def test_a_failed_removal_is_reported_and_not_counted_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes, new = aged(tmp_path, 20, 10, 0)
    real = shutil.rmtree

    def remove(folder: Path, ignore_errors: bool = False) -> None:
        if folder in kept:
            return
        real(folder, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", remove)
    kept = [stays]
    sweep(tmp_path, 3 * GROUP - 1, EPOCH)
    assert present(stays, goes, new) == [True, False, True]
    kept.append(new)
    with pytest.raises(OSError, match=f"{2 * GROUP} bytes of KV blocks are left"):
        sweep(tmp_path, GROUP, EPOCH)


def test_an_unchanged_group_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = aged(tmp_path, 10, 0)
    known: Sizes = {}
    sweep(tmp_path, 10**9, EPOCH, known)
    listed: list[Path] = []
    real = os.scandir

    def scan(folder: Path) -> object:
        listed.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scan)
    (new / "another").write_bytes(bytes(BLOCK))
    sweep(tmp_path, 10**9, EPOCH, known)
    assert new in listed
    assert old not in listed
    monkeypatch.undo()
    sweep(tmp_path, 2 * GROUP, EPOCH, known)
    assert present(old, new) == [False, True]
    assert list(known) == [str(old), str(new)] or list(known) == [str(new), str(old)]
    sweep(tmp_path, 10**9, EPOCH, known)
    assert list(known) == [str(new)], "the record of removed groups grows without limit"


def test_blocks_of_earlier_epochs_are_removed_and_later_ones_kept(tmp_path: Path) -> None:
    now = time.time()
    earlier, later = (group(tmp_path, "a", now, epoch) for epoch in (EPOCH - 1, EPOCH + 1))
    (tmp_path / "foreign").mkdir()
    sweep(tmp_path, 10**9, EPOCH)
    assert present(earlier, later, tmp_path / "foreign") == [False, True, True]


def test_blocks_of_all_epochs_count_to_the_bytes(tmp_path: Path) -> None:
    now = time.time()
    later, new = group(tmp_path, "a", now - 10, EPOCH + 1), group(tmp_path, "a", now)
    sweep(tmp_path, 2 * GROUP - 1, EPOCH)
    assert present(later, new) == [False, True]


def fleets(pool: Path, **ages: float) -> list[Path]:
    """Fleets whose folders were last swept so many seconds ago."""
    for name, age in ages.items():
        (pool / name).mkdir(exist_ok=True)
        (pool / name / ".sweep").touch()
        swept_at = time.time() - age
        os.utime(pool / name / ".sweep", (swept_at, swept_at))
    return [pool / name for name in ages]


def test_data_of_an_ended_fleet_are_removed_by_another_after_hours(tmp_path: Path) -> None:
    now = 0.0
    ended, young = fleets(tmp_path, ended=2 * STALE_SECONDS, young=0)
    (tmp_path / "foreign").mkdir()
    os.utime(tmp_path / "foreign", (0, 0))
    stale = StaleFleets(lambda: now)
    for _ in range(2):
        stale.remove(tmp_path)
        now += UNSWEPT_SECONDS + 1
    assert present(ended, young, tmp_path / "foreign") == [False, True, True]


HOLDS = """
import sys, time
from pathlib import Path
from openseer_worker.kv_pool.places import hold_fleet_folder
held = hold_fleet_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_data_of_a_killed_local_run_are_removed_at_once(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    held = hold_fleet_folder(own)
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(other)], stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "held\n"
            group(other, "a", time.time())
            StaleFleets().remove(tmp_path)
            assert present(own, other) == [True, True]
        finally:
            run.kill()
    StaleFleets().remove(tmp_path)
    assert present(own, other) == [True, False]
    assert held is not None
    held.close()


def test_a_clock_jump_makes_no_fleet_stale(tmp_path: Path) -> None:
    now = 0.0
    stale = StaleFleets(lambda: now)
    for sweeps in range(3):  # a fleet whose machine's clock is hours behind
        fleets(tmp_path, behind=2 * STALE_SECONDS - sweeps)
        stale.remove(tmp_path)
        now += UNSWEPT_SECONDS + 1
    assert (tmp_path / "behind").exists()


def test_a_foreign_fleet_does_not_stop_the_removal_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    closed, ended = fleets(tmp_path, closed=2 * STALE_SECONDS, ended=2 * STALE_SECONDS)
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    stale = StaleFleets(lambda: now)
    for _ in range(2):
        stale.remove(tmp_path)
        now += UNSWEPT_SECONDS + 1
    assert present(closed, ended) == [True, False]
