"""A file of routed experts. It consists of records; a record is a stretch of rows with a checksum.

Writers only append to a file, so a killed writer damages at most the last record.
"""

import struct
from collections.abc import Iterator
from zlib import crc32

from openseer_core.routed_rows import DTYPES, RowShape, Stretch

_HEADER = struct.Struct("<4sIIHHHH")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"OSRE"


def pack_record(name: str, shape: RowShape, stretch: Stretch) -> bytes:
    """One record of the file `name`."""
    count = len(stretch.rows) // shape.row_bytes
    header = _HEADER.pack(_MAGIC, stretch.start, count, shape.layers, shape.experts, shape.item_bytes, 0)
    return header + _CHECKSUM.pack(_sum(name, header, stretch.rows)) + stretch.rows


def read_records(name: str, data: bytes | memoryview) -> Iterator[tuple[RowShape, Stretch]]:
    """The records of a file, up to the first record that is incomplete, wrong, or belongs to another file."""
    at, body = 0, _HEADER.size + _CHECKSUM.size
    while at + body <= len(data):
        header = data[at : at + _HEADER.size]
        magic, start, count, layers, experts, item_bytes, _ = _HEADER.unpack(header)
        if magic != _MAGIC or item_bytes not in DTYPES:
            return
        shape = RowShape(layers, experts, item_bytes)
        end = at + body + count * shape.row_bytes
        rows = data[at + body : end]
        (checksum,) = _CHECKSUM.unpack_from(data, at + _HEADER.size)
        if end > len(data) or not rows or checksum != _sum(name, header, rows):
            return
        yield shape, Stretch(start, rows)
        at = end


def _sum(name: str, header: bytes | memoryview, rows: bytes | memoryview) -> int:
    return crc32(rows, crc32(header, crc32(name.encode())))
