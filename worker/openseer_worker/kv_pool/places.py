"""The places of blocks: <epoch>/<version>/<group>/<block>; in a shared directory below <pool>/<fleet>.

`fleet` is a digest of the job and its store. `epoch` is the store's: a job created again under the same name has
another epoch, so it never finds blocks of other weights under the same version's name. A group's folder has the blocks
of all its responses, the prompt's once, and is removed as a whole.
"""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

from openseer_core.errors import InputError
from openseer_core.manifest.fleet import PoolBackend

_DIGEST_BYTES = 12
_HELD = ".run"


@dataclass(frozen=True, slots=True)
class EnginePool:
    """The pool's address for an engine: its `backend`, and either the fleet's `folder` in a shared directory or
    Mooncake's `master` (HOST:PORT)."""

    backend: PoolBackend
    folder: Path = Path()
    master: str = ""


def digest(text: str) -> str:
    """Returns a folder's name for `text`: 24 hexadecimal digits."""
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def fleet_folder(pool: str, fleet: str) -> Path:
    """Returns the folder of a job's fleet in a pool. `fleet`: WorkerSettings.fleet."""
    return Path(pool) / digest(fleet)


def make_folder(pool: EnginePool) -> None:
    """Creates the fleet's folder, readable by this user alone, since KV blocks reveal prompts. Raises InputError."""
    try:
        pool.folder.parent.mkdir(parents=True, exist_ok=True)
        make_fleet_folder(pool.folder)
        check_folder(pool.folder)
    except OSError as error:
        raise InputError(
            f"spec.kvPool: {pool.folder.parent}: workers cannot write there: {error.strerror}; mount a volume, or name "
            "another folder that all workers share"
        ) from error


def check_folder(folder: Path) -> None:
    """Checks that a file in the folder can be written and locked, as a sweep does; leaves no file. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_fleet_folder(folder: Path) -> None:
    """Creates a fleet's folder if it is missing, readable by this user alone. Raises OSError if the pool's folder is
    missing: a new one would be on the disk below the pool's mount point."""
    folder.mkdir(mode=0o700, exist_ok=True)


def hold_fleet_folder(folder: Path) -> IO[bytes] | None:
    """Creates the folder of a fleet that consists of this process and its children. Returns a file whose lock they
    hold, so that `is_left` is True after the end of all, also by SIGKILL; None if the folder cannot be locked."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_fleet_folder(folder)
        file = (folder / _HELD).open("wb")
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return None  # workers report the error, and end the job
    return file


def is_left(folder: Path) -> bool:
    """Whether the processes that held a fleet's folder have all ended; False if none ever held it."""
    try:
        with (folder / _HELD).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def make_group_folder(fleet: Path, place: str) -> None:
    """Creates a group's folder (`place`: from `group_place`) in its fleet's folder. Raises OSError."""
    make_fleet_folder(fleet)
    (fleet / place).mkdir(parents=True, exist_ok=True)


def group_place(epoch: int, version: str, group: str) -> str:
    """Returns the folder of a group's blocks that were computed with `version`, relative to the fleet's folder."""
    return f"{version_place(epoch, version)}/{digest(group)}"


def version_place(epoch: int, version: str) -> str:
    """Returns the folder of all blocks that were computed with `version`, relative to the fleet's folder."""
    return f"{epoch}/{digest(version)}"


def block_name(block_hash: str, layout: str, rank: int) -> str:
    """Returns the file name of one rank's part of a block. `layout`: digest of the engine's block format."""
    return f"{block_hash}.{layout}.{rank}"


def count_present(folder: Path, blocks: Sequence[str], layout: str, ranks: int) -> int:
    """Counts the leading `blocks` (hashes) that the folder has with the parts of all ranks; 0 if it does not exist.

    Lists the folder once, for any number of blocks. Raises OSError.
    """
    try:
        with os.scandir(folder) as entries:
            present = {entry.name for entry in entries}
    except FileNotFoundError:
        return 0
    for count, block in enumerate(blocks):
        if any(block_name(block, layout, rank) not in present for rank in range(ranks)):
            return count
    return len(blocks)
