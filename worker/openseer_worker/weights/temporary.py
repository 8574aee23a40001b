"""Temporary folders that the workers of one machine share: one of them makes it, and all use it.

Who makes a folder holds an exclusive lock on it, who uses it a shared one; the kernel lets both go at any death. A name
would not tell: in pods process ids and names of workers recur, and several jobs share one machine's temporary files.
What nobody holds is taken up by nobody: it may be half removed, or of a job that had the same name. Whoever makes the
next one removes it.
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
"""The file that says that a folder is whole, and what its maker has found."""
POLL_SECONDS = 0.05
STALL_SECONDS = 30.0
"""A maker that has shown nothing for so long is waited for no longer: it may be frozen."""

Record = dict[str, Any]


class SharedFolder:
    """A folder that this process uses until `release`. `record`: what its maker has found."""

    def __init__(self, path: Path, record: Record, lock: int) -> None:
        self.path, self.record = path, record
        self._lock = lock

    def spoil(self) -> None:
        """From now on nobody takes it up: it does not hold what it should."""
        (self.path / RECORD).unlink(missing_ok=True)

    def release(self) -> None:
        """Whoever is the last removes it."""
        _remove_unused(self.path, self._lock)
        os.close(self._lock)


def shared_folder(key: str, make: Callable[[Path], Record], stopped: Callable[[], bool]) -> SharedFolder:
    """The folder of a key, filled by `make` where no process of this machine holds it, or waited for.

    `make` shows by what it writes into the folder, or by the folder's times, that it goes on. Raises what `make`
    raises, LoadError when it is not wanted any more, and OSError where no temporary files can be kept.
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
    """Removes the folders that no process holds, and that this one may remove; they may be large."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is another user's, or is removed right now
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                _remove_unused(folder, lock)
            finally:
                os.close(lock)


def _take(path: Path, lock: int, make: Callable[[Path], Record]) -> Record | None:
    """Makes the folder, or takes up what others hold; None while somebody makes it. The lock is a shared one then."""
    if _lock(lock, fcntl.LOCK_EX):
        if not _is_at(path, lock):
            return None
        try:
            _make(path, make)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    # From the one kind to the other there is a moment without: who takes or removes it then is found out.
    return _record(path) if _lock(lock, fcntl.LOCK_SH) and _is_at(path, lock) else None


def _is_spoiled(path: Path, lock: int) -> bool:
    """Whether somebody uses it still, and nobody may take it up."""
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
    """None where the folder of that name is another user's, or others may write into it."""
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
    """Whether the open folder is still the one of that name."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(lock))
    except FileNotFoundError:
        return False


def _remove_unused(path: Path, lock: int) -> None:
    if _lock(lock, fcntl.LOCK_EX) and _is_at(path, lock):
        shutil.rmtree(path, ignore_errors=True)


class _Maker:
    """Whoever makes a folder that others wait for, by what it has written, and the folder's times."""

    def __init__(self, path: Path) -> None:
        self._path, self._sign, self._seen_at = path, (-1, 0), time.monotonic()

    def stalls(self) -> bool:
        """Whether nothing has come for STALL_SECONDS."""
        sign = (0, 0)
        with suppress(OSError), os.scandir(self._path) as entries:
            size = sum(entry.stat().st_size for entry in entries)
            sign = size, self._path.stat().st_mtime_ns
        if sign != self._sign:
            self._sign, self._seen_at = sign, time.monotonic()
        return time.monotonic() - self._seen_at > STALL_SECONDS
