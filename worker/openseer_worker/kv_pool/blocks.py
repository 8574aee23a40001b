"""A KV block as a file: a header with a checksum, then the block's bytes of every layer.

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


class BadBlockError(Exception):
    """A block file that is not what was written: cut short, of another size, or with a wrong checksum."""


def write_block(path: Path, payload: memoryview) -> bool:
    """Writes a block of bytes (uint8, contiguous); False where it is there already. Raises OSError."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    header = _HEADER.pack(_MAGIC, payload.nbytes, zlib.crc32(payload))
    try:
        with beside.open("xb", buffering=0) as file:
            _write_all(file.fileno(), header)
            _write_all(file.fileno(), payload)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return True


def read_block(path: Path, into: memoryview) -> None:
    """Fills `into` (uint8, contiguous, of the block's size) from a file. Raises OSError and BadBlockError."""
    with path.open("rb", buffering=0) as file:
        magic, size, checksum = _HEADER.unpack(_read_header(file.fileno(), path))
        if magic != _MAGIC or size != into.nbytes:
            raise BadBlockError(f"{path}: found {size} bytes of another format, expected {into.nbytes}")
        filled = 0
        while filled < size and (count := os.readv(file.fileno(), [into[filled:]])):
            filled += count
    if filled < size:
        raise BadBlockError(f"{path}: found {filled} bytes, expected {size}")
    if zlib.crc32(into) != checksum:
        raise BadBlockError(f"{path}: its checksum is wrong")


def _read_header(descriptor: int, path: Path) -> bytes:
    header = os.read(descriptor, _HEADER.size)
    if len(header) < _HEADER.size:
        raise BadBlockError(f"{path}: found {len(header)} bytes, expected a header of {_HEADER.size}")
    return header


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]
