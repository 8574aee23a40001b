"""A KV block as the pool keeps it: a header with a checksum, then the block's bytes of every layer.

A file is written beside its place and then renamed, so readers see a whole file or none. It is not synchronized to the
disk: what a power cut leaves of it fails its checksum, and the block is computed again.
"""

import os
import struct
import threading
import zlib
from pathlib import Path

_HEADER = struct.Struct("<8sQI")
_MAGIC = b"OSKV\x00\x00\x00\x01"
HEADER_BYTES = _HEADER.size
"""Bytes before a block's own."""


class BadBlockError(Exception):
    """A block that is not what was written: cut short, of another size, or with a wrong checksum."""


def block_header(payload: memoryview) -> bytes:
    """What stands before a block (uint8, contiguous): HEADER_BYTES, with its size and checksum."""
    return _HEADER.pack(_MAGIC, payload.nbytes, zlib.crc32(payload))


def check_block(name: str, header: bytes | memoryview, payload: memoryview) -> None:
    """Raises BadBlockError unless `payload` is what was written under this header of HEADER_BYTES."""
    magic, size, checksum = _HEADER.unpack(header)
    if magic != _MAGIC or size != payload.nbytes:
        raise BadBlockError(f"{name}: found {size} bytes of another format, expected {payload.nbytes}")
    if zlib.crc32(payload) != checksum:
        raise BadBlockError(f"{name}: its checksum is wrong")


def write_block(path: Path, payload: memoryview) -> bool:
    """Writes a block of bytes (uint8, contiguous); False where it is there already. Raises OSError."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with beside.open("xb", buffering=0) as file:
            _write_all(file.fileno(), block_header(payload))
            _write_all(file.fileno(), payload)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return True


def read_block(path: Path, into: memoryview) -> None:
    """Fills `into` (uint8, contiguous, of the block's size) from a file. Raises OSError and BadBlockError."""
    with path.open("rb", buffering=0) as file:
        header = _read_header(file.fileno(), path)
        filled = 0
        while filled < into.nbytes and (count := os.readv(file.fileno(), [into[filled:]])):
            filled += count
    if filled < into.nbytes:
        raise BadBlockError(f"{path}: found {filled} bytes, expected {into.nbytes}")
    check_block(str(path), header, into)


def _read_header(descriptor: int, path: Path) -> bytes:
    header = os.read(descriptor, _HEADER.size)
    if len(header) < _HEADER.size:
        raise BadBlockError(f"{path}: found {len(header)} bytes, expected a header of {_HEADER.size}")
    return header


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]
