"""Rows of routed experts, as numbers of a position: layers × experts of a layer, unsigned, of one or two bytes each.

The row of a position says which experts the token at that position went through.
"""

from dataclasses import dataclass
from typing import NamedTuple

DTYPES = {1: "uint8", 2: "uint16"}
"""numpy's name of an expert's number, by its bytes."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """A model's rows. `layers`: all of its layers, those without experts hold zeros; `experts`: of a token in a layer;
    `item_bytes`: of an expert's number, 1 or 2, little-endian."""

    layers: int
    experts: int
    item_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one position."""
        return self.layers * self.experts * self.item_bytes

    @property
    def dtype(self) -> str:
        """numpy's name of the numbers."""
        return DTYPES[self.item_bytes]


class Stretch(NamedTuple):
    """Rows of the positions from `start` on."""

    start: int
    rows: bytes | memoryview
