"""Waits for actions of other threads and processes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 120.0


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until `holds` is true; fails after SECONDS."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "not within the time limit"
        time.sleep(0.01)


def stop(pid: int) -> None:
    """Sends SIGSTOP, and returns once each thread of the process has stopped.

    On a busy machine the thread that gets the signal may wait for a core while the others continue.
    """
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(_is_stopped(stat) for stat in Path(f"/proc/{pid}/task").glob("*/stat")))


def _is_stopped(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in "Tt"
    except (FileNotFoundError, ProcessLookupError):  # a thread that has ended
        return True
