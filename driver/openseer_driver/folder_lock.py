"""Locks a file so that one session at a time uses a folder; the kernel releases the lock when the process ends."""

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openseer_core.errors import OutputError

WAIT_SECONDS = 5.0
"""Limit of the wait for a killed session's store, in seconds; the store finishes its last write before it exits."""
POLL_SECONDS = 0.02


class FolderHeldError(OutputError):
    """Another run writes to the folder."""

    retryable = True


def lock(file: int, path: Path) -> None:
    """Locks the open file descriptor `file` until it is closed. Raises FolderHeldError, which names `path`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderHeldError(f"{path}: another run is writing here; wait for it or stop it") from error


def is_locked(path: Path) -> bool:
    """Whether an existing file is locked. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def held(path: Path, seconds: float = 0.0) -> Generator[None]:
    """Locks the file `path`, which is created if missing. Raises FolderHeldError after `seconds`, OSError."""
    give_up_at = time.monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                lock(file.fileno(), path)
                break
            except FolderHeldError:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(POLL_SECONDS)
        yield
