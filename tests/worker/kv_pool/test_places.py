"""Places of blocks, and the number of a context's blocks in the pool."""

import errno
import fcntl
from pathlib import Path

import pytest

from openseer_core.errors import InputError
from openseer_worker.kv_pool.places import (
    EnginePool,
    block_name,
    count_present,
    fleet_folder,
    group_place,
    make_folder,
    make_group_folder,
)

BLOCKS = ["a1", "b2", "c3", "d4"]


def keep(folder: Path, blocks: list[str], ranks: int = 1, layout: str = "plain") -> None:
    for block in blocks:
        for rank in range(ranks):
            (folder / block_name(block, layout, rank)).write_bytes(b"")


def test_each_fleet_epoch_version_and_group_has_its_own_place() -> None:
    places = {
        fleet_folder("/pool", fleet) / group_place(epoch, version, group)
        for fleet in ("team/a redis://h", "team/b redis://h")
        for epoch in (0, 7)
        for version in ("v1", "v2")
        for group in ("1/g", "2/g", "1/../g")
    }
    assert len(places) == 24
    assert all(len(place.parts) == 6 and ".." not in place.parts for place in places)


def test_a_stores_password_is_not_in_a_folders_name() -> None:
    assert "secret" not in str(fleet_folder("/pool", "team/a redis://:secret@host"))


def test_a_fleets_folder_is_private(tmp_path: Path) -> None:
    pool = EnginePool("shared-directory", tmp_path / "new" / "fleet")
    make_folder(pool)
    make_folder(pool)
    assert pool.folder.stat().st_mode & 0o777 == 0o700
    assert list(pool.folder.iterdir()) == []


def test_a_pool_where_nothing_can_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"spec\.kvPool: .*/file/pool: workers cannot write there: Not a directory"):
        make_folder(EnginePool("shared-directory", tmp_path / "file" / "pool" / "fleet"))


def test_a_vanished_fleet_folder_is_recreated_as_private(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    make_group_folder(fleet, "1/v/g")
    assert fleet.stat().st_mode & 0o777 == 0o700
    assert (fleet / "1/v/g").is_dir()


def test_a_vanished_pool_is_not_recreated_on_the_disk_below(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_group_folder(tmp_path / "pool" / "fleet", "1/v/g")
    assert not list(tmp_path.iterdir())


def test_a_pool_whose_files_cannot_be_locked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(_file: object, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", lock)
    with pytest.raises(InputError, match=r"spec\.kvPool: .*: No locks available"):
        make_folder(EnginePool("shared-directory", tmp_path / "fleet"))


def test_only_blocks_before_the_first_gap_count(tmp_path: Path) -> None:
    keep(tmp_path, ["a1", "b2", "d4"])
    assert count_present(tmp_path, BLOCKS, "plain", 1) == 2
    assert count_present(tmp_path, BLOCKS[:2], "plain", 1) == 2
    assert count_present(tmp_path, BLOCKS[2:], "plain", 1) == 0


def test_a_block_counts_with_the_parts_of_all_ranks(tmp_path: Path) -> None:
    keep(tmp_path, ["a1"], ranks=2)
    keep(tmp_path, ["b2"], ranks=1)
    assert count_present(tmp_path, BLOCKS, "plain", 2) == 1


def test_blocks_of_another_layout_do_not_count(tmp_path: Path) -> None:
    keep(tmp_path, BLOCKS, layout="other")
    assert count_present(tmp_path, BLOCKS, "plain", 1) == 0


def test_a_missing_folder_has_no_blocks(tmp_path: Path) -> None:
    assert count_present(tmp_path / "nothing", BLOCKS, "plain", 1) == 0
