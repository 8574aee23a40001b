"""Finds the names of the machine's devices. No function may use a GPU, since engines are forked later."""

import os
import shutil
import subprocess
from pathlib import Path

UNKNOWN = "unknown GPU"
_SECONDS = 30.0


def device_name(*, on_cpu: bool) -> str:
    """Returns the driver's name of the first visible GPU, or `cpu`."""
    if on_cpu:
        return "cpu"
    program = shutil.which("nvidia-smi")
    if program is None:
        return UNKNOWN
    query = [program, "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    cards = [tuple(cell.strip() for cell in line.split(",", 2)) for line in done.stdout.splitlines()]
    return first_visible([card for card in cards if len(card) == 3], os.environ.get("CUDA_VISIBLE_DEVICES"))


def first_visible(cards: list[tuple[str, ...]], visible: str | None) -> str:
    """Returns the name of the card that `visible` (CUDA_VISIBLE_DEVICES) names first. `cards`: (index, UUID, name)."""
    if visible is None:
        return cards[0][2] if cards else UNKNOWN
    first = visible.split(",")[0].strip()
    for index, uuid, name in cards:
        if first == index or (first.startswith("GPU-") and uuid.startswith(first)):
            return name
    return UNKNOWN


def processor_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """Returns Linux's name of the processor, or ""."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "")
