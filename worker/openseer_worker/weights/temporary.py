"""The folder of what one process has fetched; what a killed one has left is removed by the next.

Who lives holds a lock on its folder, which the kernel lets go at any death. A name would not tell: in pods process ids
and names of workers recur, and several jobs share one machine's folder of temporary files.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX, NEW = "openseer-weights-", "new-"


class TemporaryRoot:
    """A folder that lasts until `close`, or until `remove_left` of another process once this one is dead."""

    def __init__(self) -> None:
        fresh = Path(tempfile.mkdtemp(prefix=NEW + PREFIX))
        self._lock = os.open(fresh, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = fresh.rename(fresh.with_name(fresh.name.removeprefix(NEW)))  # only now do others see it

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_left() -> None:
    """Removes the folders whose process is dead, and that this one may remove; they may be large."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is another user's, or its process lives
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
