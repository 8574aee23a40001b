"""A KV block as a file: whole and checked, or not there."""

import zlib
from pathlib import Path

import pytest

from openseer_worker.kv_pool.blocks import BadBlockError, read_block, write_block

BLOCK = bytes(range(256)) * 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "group" / "block"
    assert write_block(path, memoryview(BLOCK))
    return path


def read(path: Path, size: int = len(BLOCK)) -> bytes:
    into = bytearray(size)
    read_block(path, memoryview(into))
    return bytes(into)


def test_a_block_is_read_as_it_was_written(path: Path) -> None:
    assert read(path) == BLOCK
    assert [entry.name for entry in path.parent.iterdir()] == ["block"], "something else was left beside it"


def test_a_block_that_is_there_is_not_written_again(path: Path) -> None:
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
def test_a_block_that_was_cut_short_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadBlockError, match="expected"):
        read(path)


def test_a_block_of_another_size_is_refused(path: Path) -> None:
    with pytest.raises(BadBlockError, match=str(len(BLOCK))):
        read(path, len(BLOCK) - 1)


def test_a_block_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "group").write_text("a file in the place of the folder")
    with pytest.raises(OSError, match="group"):
        write_block(tmp_path / "group" / "block", memoryview(BLOCK))
    assert len(list(tmp_path.iterdir())) == 1


def test_the_checksum_is_over_all_bytes(path: Path) -> None:
    assert zlib.crc32(BLOCK).to_bytes(4, "little") in path.read_bytes()[:20]
