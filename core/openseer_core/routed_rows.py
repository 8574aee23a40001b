"""Rows of routed experts: per position layers × experts of a layer, as unsigned numbers of one or two bytes.

The row of a position holds the experts that its token went through.
"""

from dataclasses import dataclass
from typing import NamedTuple

DTYPES = {1: "uint8", 2: "uint16"}
"""numpy's dtype name, by bytes of an expert's number."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """The shape of a model's rows. `layers`: all of its layers, those without experts hold zeros; `experts`: per token
    and layer; `item_bytes`: of an expert's number, 1 or 2, little-endian."""

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
    """Rows of the positions from `start` on."""

    start: int
    rows: bytes | memoryview
