"""The format of a KV block in the pool: a header with a checksum, then the block's bytes of every layer.

A file is written under a temporary name and then renamed, so readers find a whole file or none. The file is not synced
to the disk: if a power cut damages it, its checksum fails, and the block is computed again. The checksum covers the
file's name, too, so that the file of another block, which has another context's KV, also fails.
"""

import errno
import os
import stat
import struct
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_HEADER = struct.Struct("<8sQI")
_MAGIC = b"OSKV\x00\x00\x00\x02"
HEADER_BYTES = _HEADER.size
"""Size of a block's header, in bytes."""


class BadBlockError(Exception):
    """A damaged block file: truncated, of another size or name, or with a wrong checksum."""


def block_header(name: str, payload: memoryview) -> bytes:
    """Returns the header of a block (uint8, contiguous), HEADER_BYTES long: size, and checksum of name and payload."""
    return _HEADER.pack(_MAGIC, payload.nbytes, _checksum(name, payload))


def check_block(name: str, header: bytes | memoryview, payload: memoryview) -> None:
    """Raises BadBlockError unless `header` (HEADER_BYTES long) matches `name` and `payload`."""
    magic, size, checksum = _HEADER.unpack(header)
    if magic != _MAGIC or size != payload.nbytes:
        raise BadBlockError(f"found {size} bytes of another format, expected {payload.nbytes}")
    if _checksum(name, payload) != checksum:
        raise BadBlockError("its checksum is wrong")


def write_block(path: Path, payload: memoryview) -> bool:
    """Writes a block (uint8, contiguous); returns False if the file exists already.

    Raises OSError; FileNotFoundError if the folder does not exist.
    """
    if path.exists():
        return False
    # Processes of other pods may have the same process id, and their threads the same thread id.
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.{threading.get_ident()}")
    header = block_header(path.name, payload)
    try:
        with beside.open("xb", buffering=0) as file:
            _write_all(file.fileno(), header)
            _write_all(file.fileno(), payload)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    return True


def read_block(path: Path, into: memoryview) -> None:
    """Fills `into` (uint8, contiguous, of the block's size) from a file.

    Raises OSError, and BadBlockError for a damaged file or another block's. A bad file is removed, so that no other
    request tries to fetch it, and the next worker that computes the block writes it again.
    """
    try:
        _read(path, into)
    except BadBlockError:
        with suppress(OSError):
            path.unlink()
        raise


def _read(path: Path, into: memoryview) -> None:
    with _opened(path) as descriptor:
        magic, size, checksum = _HEADER.unpack(_read_header(descriptor, path))
        if magic != _MAGIC or size != into.nbytes:
            raise BadBlockError(f"{path}: found {size} bytes of another format, expected {into.nbytes}")
        filled = 0
        while filled < size and (count := os.readv(descriptor, [into[filled:]])):
            filled += count
    if filled < size:
        raise BadBlockError(f"{path}: found {filled} bytes, expected {size}")
    if _checksum(path.name, into) != checksum:
        raise BadBlockError(f"{path}: its checksum is wrong")


@contextmanager
def _opened(path: Path) -> Generator[int]:
    """Opens a regular file for reading. Raises BadBlockError for others: a pipe blocks, a link may point anywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BadBlockError(f"{path}: it is a link") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadBlockError(f"{path}: it is no file")
        yield descriptor
    finally:
        os.close(descriptor)


def _checksum(name: str, payload: memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(name.encode()))


def _read_header(descriptor: int, path: Path) -> bytes:
    header = os.read(descriptor, _HEADER.size)
    if len(header) < _HEADER.size:
        raise BadBlockError(f"{path}: found {len(header)} bytes, expected a header of {_HEADER.size}")
    return header


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]
