"""A wait for what other threads and processes do."""

import time
from collections.abc import Callable

SECONDS = 120.0


def eventually(holds: Callable[[], bool]) -> None:
    """Returns once it holds; fails after SECONDS."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.01)
