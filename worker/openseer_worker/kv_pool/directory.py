"""KV blocks in a shared directory: a folder for each group, a file for each block."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from openseer_worker.kv_pool.blocks import read_block, write_block
from openseer_worker.kv_pool.free_space import FreeSpace
from openseer_worker.kv_pool.places import count_present, make_group_folder


class DirectoryBlocks:
    """The blocks of a fleet, in its folder within the pool; see BlockStore."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._space = FreeSpace(folder)

    def count_present(self, place: str, blocks: Sequence[str], layout: str, ranks: int) -> int:
        """Lists the group's folder once, for any number of blocks. Raises OSError."""
        return count_present(self._folder / place, blocks, layout, ranks)

    def read(self, place: str, names: Sequence[str], into: Sequence[memoryview]) -> Iterator[None]:
        """Reads one block after the other. Raises OSError and BadBlockError."""
        for name, row in zip(names, into, strict=True):
            read_block(self._folder / place / name, row)
            yield

    def write(
        self, place: str, names: Sequence[str], payloads: Sequence[memoryview], *, begins: bool
    ) -> Iterator[bool]:
        """Writes one block after the other. Raises OSError, also if the disk is too full or no worker sweeps."""
        self._space.check()
        if begins:
            make_group_folder(self._folder, place)
        for name, payload in zip(names, payloads, strict=True):
            yield write_block(self._folder / place / name, payload)
