"""The digest of a version: a hash of its files by pieces, so that each piece can be checked and passed on alone.

piece: SHA-256 of PIECE_BYTES of a file (the last one is shorter); file: SHA-256 of its pieces' digests; version:
SHA-256 of the files' names, sizes and digests, by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

PIECE_BYTES = 16 * 2**20
"""Bytes of one piece."""
_HEAD = b"openseer weights, pieces of 16 MiB\n"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file: its name relative to the folder ("/" as separator), its size in bytes, and the digests of its pieces."""

    name: str
    size: int
    pieces: tuple[bytes, ...]


def version_digest(files: Iterable[FileDigest]) -> str:
    """The digest of a folder of weights, 64 hexadecimal digits; the order of the files does not matter."""
    version = sha256(_HEAD)
    for file in sorted(files, key=lambda file: file.name):
        name = file.name.encode()
        version.update(b"%d %d %s" % (len(name), file.size, name) + sha256(b"".join(file.pieces)).digest())
    return version.hexdigest()
