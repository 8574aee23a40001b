"""The interface of a pool's backend: counts, reads and writes KV blocks."""

from collections.abc import Iterator, Sequence
from typing import Protocol


class BlockStore(Protocol):
    """Stores blocks by name, in the places of groups. A call may take long or hang, so callers run it in a thread and
    wait with a timeout."""

    def count_present(self, place: str, blocks: Sequence[str], layout: str, ranks: int) -> int:
        """Counts the leading `blocks` (hashes) that the pool has with the parts of all ranks. Raises OSError."""
        ...

    def read(self, place: str, names: Sequence[str], into: Sequence[memoryview]) -> Iterator[None]:
        """Fills `into` (uint8, contiguous, one block each) in order; yields after each block.

        Raises OSError at the first missing block, BadBlockError at the first damaged block.
        """
        ...

    def write(
        self, place: str, names: Sequence[str], payloads: Sequence[memoryview], *, begins: bool
    ) -> Iterator[bool]:
        """Writes blocks (`payloads`: as `into` of `read`); yields for each block whether it is new. `begins`: the first
        of these blocks is the first block of its context.

        Raises OSError; FileNotFoundError if the group's earlier blocks were removed.
        """
        ...
