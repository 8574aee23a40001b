"""Rows of routed experts: the numbers of the experts that processed the token at a position, in each layer.

A row is an array of layers × experts per token, of unsigned integers with 1 or 2 bytes.
"""

from dataclasses import dataclass
from typing import NamedTuple

DTYPES = {1: "uint8", 2: "uint16"}
"""numpy's dtype name, by the bytes of an expert's number."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """The shape of a model's rows. `layers`: number of all layers; layers without experts hold zeros. `experts`: number
    per token and layer. `item_bytes`: bytes of an expert's number, 1 or 2, little-endian."""

    layers: int
    experts: int
    item_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes per position."""
        return self.layers * self.experts * self.item_bytes

    @property
    def dtype(self) -> str:
        """numpy's dtype name of the numbers."""
        return DTYPES[self.item_bytes]


class Stretch(NamedTuple):
    """The rows of consecutive positions; the first position is `start`."""

    start: int
    rows: bytes | memoryview
