"""A small disk of its own that can be filled: a tmpfs, for which one must be root."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
SIZE_MIB = 192
_FILL = "fill"


def why_not() -> str:
    """Why there can be no such disk here; empty when there can."""
    return "" if os.geteuid() == 0 else "only root may mount a small disk"


@contextmanager
def small_disk(folder: Path) -> Generator[bool]:
    """Mounts it at the folder, where that is allowed, until the end; says whether it did."""
    folder.mkdir()
    mounted = not why_not() and not _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted and _run("umount", str(folder)):
            _run("umount", "--lazy", str(folder))


def fill(folder: Path) -> None:
    """Leaves no byte."""
    with (folder / _FILL).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            return


def free(folder: Path) -> None:
    """Takes the filling away."""
    (folder / _FILL).unlink(missing_ok=True)


def _run(*command: str) -> int:
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
