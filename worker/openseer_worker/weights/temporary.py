"""Temporary folders that the workers of one machine share: one worker fills a folder, and all use it.

The maker holds an exclusive lock on the folder, each user a shared lock; the kernel releases locks when a process ends.
A name could not show whether its process runs: in pods, process ids and names of workers recur, and several jobs share
one machine's temporary files. A folder without a lock is never used: it may be partly removed, or of an earlier job of
the same name. The maker of the next folder removes it.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from openseer_core.errors import LoadError

PREFIX = "openseer-weights-"
RECORD = "made.json"
"""Name of the file that marks a complete folder; it has the maker's record."""
POLL_SECONDS = 0.05
"""Interval of attempts to use a folder while another process fills it, in seconds."""
STALL_SECONDS = 30.0
"""Time without progress after which a maker counts as frozen, in seconds."""

Record = dict[str, Any]


class SharedFolder:
    """A folder that this process uses until `release`. `record`: the return value of the maker's `make`."""

    def __init__(self, path: Path, record: Record, lock: int) -> None:
        self.path, self.record = path, record
        self._lock = lock

    def spoil(self) -> None:
        """Marks the folder as bad, so that no other process begins to use it."""
        (self.path / RECORD).unlink(missing_ok=True)

    def release(self) -> None:
        """Ends the use; the last user removes the folder."""
        _remove_unused(self.path, self._lock)
        os.close(self._lock)


def shared_folder(key: str, make: Callable[[Path], Record], stopped: Callable[[], bool]) -> SharedFolder:
    """Returns the folder of a key: an existing folder, after waiting for its maker, or a new one that `make` fills.

    `make` must write to the folder, or touch it, to show progress; if another process's maker stalls, this process gets
    a folder of its own. Raises the errors of `make`, LoadError if `stopped` returns True, and OSError if temporary
    files cannot be written or locked.
    """
    path = Path(tempfile.gettempdir()) / (PREFIX + sha256(key.encode()).hexdigest()[:32])
    maker = _Maker(path)
    while True:
        if stopped():
            raise LoadError("the weights are no longer wanted")
        lock = None if maker.stalls() else _open(path)
        if lock is not None and _is_spoiled(path, lock):
            os.close(lock)
            lock = None
        if lock is None:
            path, lock = _own_folder()
        try:
            if (record := _take(path, lock, make)) is not None:
                return SharedFolder(path, record, os.dup(lock))
        finally:
            os.close(lock)
        time.sleep(POLL_SECONDS)


def remove_left() -> None:
    """Removes the folders that no process uses, as far as permitted, because they may be large."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # the folder is another user's, or is being removed
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                _remove_unused(folder, lock)
            finally:
                os.close(lock)


def _take(path: Path, lock: int, make: Callable[[Path], Record]) -> Record | None:
    """Fills the folder if no other process uses it, and gets a shared lock. Returns the record; None while another
    process fills the folder."""
    if _lock(lock, fcntl.LOCK_EX):
        if not _is_at(path, lock):
            return None
        try:
            _make(path, make)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    # Between the exclusive and the shared lock the folder has no lock of ours; the checks detect a process that locked
    # or removed the folder in this time.
    return _record(path) if _lock(lock, fcntl.LOCK_SH) and _is_at(path, lock) else None


def _is_spoiled(path: Path, lock: int) -> bool:
    """Whether other processes still use the folder, but no new one may, because it is bad."""
    if _lock(lock, fcntl.LOCK_EX):
        return False
    return _lock(lock, fcntl.LOCK_SH) and _is_at(path, lock) and _record(path) is None


def _make(path: Path, make: Callable[[Path], Record]) -> None:
    remove_left()
    for left in path.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    record = json.dumps(make(path))
    (path / f"{RECORD}.new").write_text(record)
    (path / f"{RECORD}.new").rename(path / RECORD)


def _record(path: Path) -> Record | None:
    try:
        return json.loads((path / RECORD).read_bytes())
    except FileNotFoundError:
        return None


def _open(path: Path) -> int | None:
    """Creates the folder if it is missing, and opens it; None if it is another user's, or other users have access."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    state = os.fstat(lock)
    if state.st_uid == os.geteuid() and not state.st_mode & 0o077:
        return lock
    os.close(lock)
    return None


def _own_folder() -> tuple[Path, int]:
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    return path, os.open(path, os.O_RDONLY)


def _lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a network's file system
        why = f"temporary files cannot be locked here ({error.strerror}); set TMPDIR to a folder on a local disk"
        raise OSError(error.errno, why, tempfile.gettempdir()) from None
    return True


def _is_at(path: Path, lock: int) -> bool:
    """Whether the open folder is still the one at `path`."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(lock))
    except FileNotFoundError:
        return False


def _remove_unused(path: Path, lock: int) -> None:
    if _lock(lock, fcntl.LOCK_EX) and _is_at(path, lock):
        shutil.rmtree(path, ignore_errors=True)


class _Maker:
    """Watches the progress of a folder's maker: the bytes in the folder, and the folder's time."""

    def __init__(self, path: Path) -> None:
        self._path, self._sign, self._seen_at = path, (-1, 0), time.monotonic()

    def stalls(self) -> bool:
        """Whether the maker has made no progress for STALL_SECONDS."""
        sign = (0, 0)
        with suppress(OSError), os.scandir(self._path) as entries:
            size = sum(entry.stat().st_size for entry in entries)
            sign = size, self._path.stat().st_mtime_ns
        if sign != self._sign:
            self._sign, self._seen_at = sign, time.monotonic()
        return time.monotonic() - self._seen_at > STALL_SECONDS
