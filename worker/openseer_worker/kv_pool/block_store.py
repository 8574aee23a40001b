"""The interface of a pool's backend: counts, reads and writes KV blocks."""

from collections.abc import Iterator, Sequence
from typing import Protocol


class BlockStore(Protocol):
    """Blocks by name, in the places of groups. Any method may take long or hang: threads call it, and callers wait with
    a timeout."""

    def count_present(self, place: str, blocks: Sequence[str], layout: str, ranks: int) -> int:
        """Number of leading `blocks` (hashes) that the pool has with the parts of all ranks. Raises OSError."""
        ...

    def read(self, place: str, names: Sequence[str], into: Sequence[memoryview]) -> Iterator[None]:
        """Fills `into` (uint8, contiguous, of a block's bytes each) in order; yields after each block.

        Raises OSError at the first missing block, BadBlockError at the first damaged one.
        """
        ...

    def write(
        self, place: str, names: Sequence[str], payloads: Sequence[memoryview], *, begins: bool
    ) -> Iterator[bool]:
        """Writes blocks (as `into`); yields for each whether it is new. `begins`: the first one is its context's first.

        Raises OSError; FileNotFoundError if the group's earlier blocks were removed.
        """
        ...
