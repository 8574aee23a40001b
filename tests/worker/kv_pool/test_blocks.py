"""A KV block as a file: whole and verified, or missing."""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_worker.kv_pool.blocks import BadBlockError, read_block, write_block

BLOCK = bytes(range(256)) * 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "group" / "block"
    path.parent.mkdir()
    assert write_block(path, memoryview(BLOCK))
    return path


def read(path: Path, size: int = len(BLOCK)) -> bytes:
    into = bytearray(size)
    read_block(path, memoryview(into))
    return bytes(into)


def test_a_block_is_read_as_written(path: Path) -> None:
    assert read(path) == BLOCK
    assert [entry.name for entry in path.parent.iterdir()] == ["block"], "a temporary file was left beside it"


def test_an_existing_block_is_not_written_again(path: Path) -> None:
    assert not write_block(path, memoryview(bytes(len(BLOCK))))
    assert read(path) == BLOCK


@pytest.mark.parametrize("place", [0, 8, 20, 30, -1])
def test_a_block_with_one_wrong_byte_is_refused(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadBlockError, match="block"):
        read(path)


@pytest.mark.parametrize("size", [0, 7, 20, 100])
def test_a_truncated_block_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadBlockError, match="expected"):
        read(path)


def test_a_block_of_another_size_is_refused(path: Path) -> None:
    with pytest.raises(BadBlockError, match=str(len(BLOCK))):
        read(path, len(BLOCK) - 1)


def test_a_missing_block_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "group").write_text("a file in the place of the folder")
    with pytest.raises(OSError, match="group"):
        write_block(tmp_path / "group" / "block", memoryview(BLOCK))
    assert len(list(tmp_path.iterdir())) == 1


def test_the_checksum_covers_all_bytes(path: Path) -> None:
    assert zlib.crc32(b"block" + BLOCK).to_bytes(4, "little") in path.read_bytes()[:20]


@pytest.mark.parametrize("put", [shutil.copyfile, os.link, os.rename])
def test_a_whole_file_in_another_blocks_place_is_refused(path: Path, put: Callable[[Path, Path], object]) -> None:
    other = path.with_name("other")
    put(path, other)
    with pytest.raises(BadBlockError, match="other: its checksum is wrong"):
        read(other)


def test_a_path_that_is_no_file_is_refused_at_once(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "whole")
    makes: list[Callable[[Path], None]] = [os.mkfifo, lambda place: place.symlink_to(tmp_path / "whole"), os.mkdir]
    for make in makes:
        make(path)
        with pytest.raises(BadBlockError, match="block: it is"):
            read(path)
        assert make is os.mkdir or not path.exists(), "it is still in the place of a block"


def test_a_wrong_block_is_removed_and_stored_again(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BadBlockError):
        read(path)
    assert write_block(path, memoryview(BLOCK))
    assert read(path) == BLOCK


def test_a_block_of_a_removed_group_creates_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_block(tmp_path / "gone" / "block", memoryview(BLOCK))
    assert not list(tmp_path.iterdir())
