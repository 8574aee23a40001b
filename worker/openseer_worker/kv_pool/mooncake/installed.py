"""Checks that Mooncake's programs are installed on this machine and can run."""

import importlib.util
import os
import subprocess
from pathlib import Path

from openseer_core.errors import InputError

MASTER, STORE = "mooncake_master", "mooncake_client"
"""Mooncake's programs: the first stores the blocks' locations, the second the blocks."""
PACKAGES = "mooncake-transfer-engine-non-cuda on CPUs, mooncake-transfer-engine-cuda13 beside GPUs"
MOST_SHARE = 0.8
"""Limit of the pool's memory as a share of the memory free at its start; the engines need the rest."""
_VERSION_SECONDS = 20.0
_FOUND = "spec.kvPool.backend: found mooncake"


def program(name: str) -> Path:
    """The path of one of Mooncake's programs. Raises InputError if the package is not installed."""
    spec = importlib.util.find_spec("mooncake")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    raise InputError(f"{_FOUND}, whose {name} is not installed; install {PACKAGES}, or set another backend")


def check_programs() -> None:
    """Raises InputError if Mooncake's programs, and therefore its client, cannot run here."""
    for name in (MASTER, STORE):
        _check_program(program(name))


def check_servers(most_bytes: int) -> None:
    """Raises InputError if Mooncake's programs cannot run here, or the pool needs more than the free memory allows."""
    check_programs()
    free = free_memory()
    if most_bytes > MOST_SHARE * free:
        raise InputError(
            f"spec.kvPool.maxGigabytes: found {most_bytes >> 30}, allowed with backend mooncake: at most "
            f"{int(MOST_SHARE * free) >> 30}, {MOST_SHARE:.0%} of the memory that is free here; set a smaller number"
        )


def _check_program(path: Path) -> None:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=_VERSION_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{_FOUND}, but {path} does not run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        needed = "it needs Debian's libibverbs1 and libcurl4"
        raise InputError(f"{_FOUND}, but {path.name} does not run here: {said[-1]}; {needed}")


def free_memory() -> int:
    """Returns the bytes of free memory for this process: the machine's or its container's, the smaller number."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)
