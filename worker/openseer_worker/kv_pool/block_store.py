"""What a backend of the pool does with KV blocks: says which it has, gives them, and takes more."""

from collections.abc import Iterator, Sequence
from typing import Protocol


class BlockStore(Protocol):
    """Blocks by name, in the places of groups. Any method may take long or hang: threads call it, and nobody waits for
    one of them without a limit."""

    def count_present(self, place: str, blocks: Sequence[str], layout: str, ranks: int) -> int:
        """How many of the first `blocks`, by their hashes, are there with the parts of all ranks. Raises OSError."""
        ...

    def read(self, place: str, names: Sequence[str], into: Sequence[memoryview]) -> Iterator[None]:
        """Fills `into` (uint8, contiguous, of a block's bytes each) in order; yields after each block that is whole.

        Raises OSError and BadBlockError, at the first that is not there or not what was written.
        """
        ...

    def write(
        self, place: str, names: Sequence[str], payloads: Sequence[memoryview], *, begins: bool
    ) -> Iterator[bool]:
        """Keeps blocks (as `into`); yields for each whether it was not there before. `begins`: the first of them is a
        context's first.

        Raises OSError, FileNotFoundError where blocks before these are gone with their group.
        """
        ...
