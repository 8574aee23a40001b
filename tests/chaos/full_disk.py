"""A small disk that can be filled: a tmpfs, which only root may mount."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
SIZE_MIB = 192
_FILL = "fill"


def why_not() -> str:
    """The reason why no such disk can be mounted here; empty if one can."""
    return "" if os.geteuid() == 0 else "only root may mount a small disk"


@contextmanager
def small_disk(folder: Path) -> Generator[bool]:
    """Mounts the disk at the folder until the end, if that is allowed; yields whether it is mounted."""
    folder.mkdir()
    mounted = not why_not() and not _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted and _run("umount", str(folder)):
            _run("umount", "--lazy", str(folder))


def fill(folder: Path) -> None:
    """Fills the disk to its last byte."""
    with (folder / _FILL).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            return


def free(folder: Path) -> None:
    """Removes the file that fills the disk."""
    (folder / _FILL).unlink(missing_ok=True)


def _run(*command: str) -> int:
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
