"""The digest of a version: a hash of its files by pieces, so that workers can check and pass on single pieces.

Piece: SHA-256 of PIECE_BYTES of a file (the last piece may be shorter). File: SHA-256 of its pieces' digests. Version:
SHA-256 of a fixed prefix and the files' names, sizes and digests, sorted by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

PIECE_BYTES = 16 * 2**20
"""Bytes of one piece."""
_HEAD = b"openseer weights, pieces of 16 MiB\n"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file: name relative to the folder ("/" as separator), size in bytes, and its pieces' digests in order."""

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
