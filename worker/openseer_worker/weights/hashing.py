"""The digest of weights, computed in threads while their files are read or fetched."""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from openseer_core.errors import LoadError
from openseer_core.weights.digest import PIECE_BYTES, FileDigest, version_digest
from openseer_worker.weights.files import weight_files

HASH_THREADS = min(8, os.cpu_count() or 1)
"""Threads that hash for one version: enough for the fastest disks."""
READ_BYTES = 2**20
"""Bytes of one read: they are hashed while the processor's cache has them."""


def never() -> bool:
    """Whether a digest is no longer wanted: it always is."""
    return False


def digest(folder: Path, stopped: Callable[[], bool] = never) -> str:
    """The digest of a folder's weights (core's version_digest). Raises LoadError when it is no longer wanted."""
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
    """Hashes a file that arrives in order, in the threads of a pool and piece by piece."""

    def __init__(self, name: str, pool: ThreadPoolExecutor) -> None:
        self._name = name
        self._pool = pool
        self._size = 0
        self._piece = bytearray()
        self._pending: deque[Future[bytes]] = deque()
        self._pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        """The next bytes; waits for the threads when more pieces than threads wait for them."""
        self._size += len(data)
        self._piece += data
        while len(self._piece) >= PIECE_BYTES:
            self._hash(self._piece[:PIECE_BYTES])
            del self._piece[:PIECE_BYTES]

    def digest(self) -> FileDigest:
        """Of all that has arrived: the file is whole."""
        if self._piece:
            self._hash(self._piece)
        pieces = (*self._pieces, *(piece.result() for piece in self._pending))
        return FileDigest(self._name, self._size, pieces)

    def _hash(self, piece: bytearray) -> None:
        self._pending.append(self._pool.submit(lambda: sha256(piece).digest()))
        if len(self._pending) > HASH_THREADS:
            self._pieces.append(self._pending.popleft().result())
