"""The stamp of every results file: command, date, machine, and the load of the machine at start and end."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_GIB = 2**30


class Stamp:
    """Created when a benchmark begins; `fields` is read when it ends."""

    def __init__(self) -> None:
        self._load_at_start = os.getloadavg()[0]

    def fields(self) -> dict[str, Any]:
        """The fields that each results file has besides its measurements; loads are averages over one minute."""
        return {
            "command": shlex.join(["python", *sys.argv]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": machine(),
            "load": {"start": round(self._load_at_start, 2), "end": round(os.getloadavg()[0], 2)},
        }


def machine() -> str:
    """CPU model, cores, memory, accelerator and Python of this machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    parts = (_cpu_model(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB", _accelerator())
    return ", ".join((*parts, f"Python {platform.python_version()}"))


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, 'unknown CPU')} ({platform.machine()})"


def _accelerator() -> str:
    """Names of the GPUs that the NVIDIA driver lists."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "no GPU"
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False)
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    return " + ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names)) or "no GPU"
