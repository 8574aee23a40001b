"""The bench's folder: one run at a time, and what cannot be written there is told with its name."""

import errno
import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openseer_core.errors import InputError

LOCK = "bench.lock"
_NO_LOCKS = frozenset({errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS})
"""What file systems say that know no locks."""


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Raises InputError, with the folder's name, for what the system refuses within it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--output: {folder} cannot be used: {error.strerror or error}; figures that are there are kept"
        ) from error


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Makes the folder, and holds it against other runs. Raises InputError where one has it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder} is in use by another run: wait for it, or give another --output") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
