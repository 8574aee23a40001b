"""The format of a KV block in the pool: a header with a checksum, then the block's bytes of every layer.

A file is written under a temporary name and then renamed, so readers see a whole file or none. It is not synced to the
disk: after a power cut a damaged file fails its checksum, and the block is computed again. The checksum covers the
file's name, too, so that an intact file of another block, which is another context's KV, fails as well.
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
    """The header of a block (uint8, contiguous), HEADER_BYTES long: its size, and a checksum of name and payload."""
    return _HEADER.pack(_MAGIC, payload.nbytes, _checksum(name, payload))


def check_block(name: str, header: bytes | memoryview, payload: memoryview) -> None:
    """Raises BadBlockError unless `header`, of HEADER_BYTES, fits `name` and `payload`."""
    magic, size, checksum = _HEADER.unpack(header)
    if magic != _MAGIC or size != payload.nbytes:
        raise BadBlockError(f"found {size} bytes of another format, expected {payload.nbytes}")
    if _checksum(name, payload) != checksum:
        raise BadBlockError("its checksum is wrong")


def write_block(path: Path, payload: memoryview) -> bool:
    """Writes a block (uint8, contiguous); False if the file exists already.

    Raises OSError; FileNotFoundError if its folder does not exist.
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

    Raises OSError, and BadBlockError for a file that is not this block's. That file is removed, so that the next worker
    that computes the block writes it again, and no other request tries to fetch it.
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
    """Opens a regular file for reading. Raises BadBlockError for others: a pipe blocks, a link may lead anywhere."""
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
