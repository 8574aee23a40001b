"""Computes the digest of weights in threads, while their files are read or fetched."""

import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from openseer_core.errors import LoadError
from openseer_core.weights.digest import PIECE_BYTES, FileDigest, version_digest
from openseer_worker.weights.files import weight_files

HASH_THREADS = min(8, os.cpu_count() or 1)
"""Number of threads that hash one version: enough for the fastest disks."""
READ_BYTES = 2**20
"""Bytes per read: small enough to be hashed within the processor's cache."""


def never() -> bool:
    """Returns False: the default of `stopped`, for work without a cancel."""
    return False


def digest(folder: Path, stopped: Callable[[], bool] = never) -> str:
    """Returns the digest of a folder's weights (core's version_digest). Raises LoadError if `stopped` returns True."""
    files = {path.relative_to(folder).as_posix(): path for path in weight_files(folder)}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    places = [(name, start) for name, size in sizes.items() for start in range(0, size, PIECE_BYTES)]
    pieces: dict[str, list[bytes]] = {name: [] for name in files}
    gone = threading.Event()
    with ThreadPoolExecutor(HASH_THREADS) as pool:

        def read(place: tuple[str, int]) -> bytes:
            return _read_piece(files[place[0]], place[1], lambda: gone.is_set() or stopped())

        try:
            for (name, _), piece in zip(places, pool.map(read, places), strict=True):
                pieces[name].append(piece)
        finally:
            gone.set()
    return version_digest(FileDigest(name, sizes[name], tuple(found)) for name, found in pieces.items())


def _read_piece(path: Path, start: int, stopped: Callable[[], bool]) -> bytes:
    piece, left, buffer = sha256(), PIECE_BYTES, memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (count := file.readinto(buffer[: min(left, READ_BYTES)])):
            if stopped():
                raise LoadError(f"{path}: no longer wanted")
            piece.update(buffer[:count])
            left -= count
    return piece.digest()


class ArrivingFile:
    """A file whose bytes arrive in order: they are written at once, hashed piece by piece in the threads of a pool, and
    can be read by other threads while the rest arrives.

    `reading`: id of the reading of the file from its source to which the pieces belong; None: a new reading.
    """

    def __init__(self, path: Path, pool: ThreadPoolExecutor, reading: str | None = None) -> None:
        self.reading = reading or secrets.token_hex(8)
        self._path = path
        self._pool = pool
        self._file = path.open("wb")
        self._size = 0
        self._piece = bytearray()
        self._pieces: list[Future[bytes]] = []
        self._is_whole = False

    def __enter__(self) -> "ArrivingFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, data: bytes) -> None:
        """Adds the next bytes; blocks while more pieces than HASH_THREADS wait to be hashed."""
        self._file.write(data)
        self._size += len(data)
        self._piece += data
        while len(self._piece) >= PIECE_BYTES:
            self._hash(self._piece[:PIECE_BYTES])
            del self._piece[:PIECE_BYTES]

    def add_piece(self, piece: bytes | bytearray, digest: bytes) -> None:
        """Adds the next piece, whose digest the caller has checked."""
        self._file.write(piece)
        self._size += len(piece)
        found: Future[bytes] = Future()
        found.set_result(digest)
        self._show(found)

    def end(self) -> FileDigest:
        """Ends the file; returns its digests."""
        if self._piece:
            self._hash(self._piece)
        self._file.close()
        self._is_whole = True
        return FileDigest(self._path.name, self._size, tuple(piece.result() for piece in self._pieces))

    def piece(self, number: int) -> tuple[bytes, bytes] | None:
        """Returns a piece and its digest, both empty past the end; None if it has not arrived. Raises OSError."""
        is_whole = self._is_whole  # read before the number of pieces: more may arrive in between
        if number >= len(self._pieces):
            return (b"", b"") if is_whole else None
        with self._path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), PIECE_BYTES, number * PIECE_BYTES), self._pieces[number].result()

    def _hash(self, piece: bytearray) -> None:
        self._show(self._pool.submit(lambda: sha256(piece).digest()))
        if len(self._pieces) > HASH_THREADS:
            self._pieces[-1 - HASH_THREADS].result()

    def _show(self, piece: Future[bytes]) -> None:
        self._file.flush()
        self._pieces.append(piece)
