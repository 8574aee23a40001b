"""A pool whose reads hang, shared by tests of the worker's side and of whole engines."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openseer_worker.kv_pool import directory


@contextmanager
def hanging(folder: Path) -> Generator[threading.Event]:
    """Makes reads of block files in a folder wait for the event, which is set at the latest at the end of the
    `with`."""
    release, read_block = threading.Event(), directory.read_block

    def wait_and_read(path: Path, into: memoryview) -> None:
        if path.parent == folder:
            release.wait()
        read_block(path, into)

    directory.read_block = wait_and_read
    try:
        yield release
    finally:
        release.set()
        directory.read_block = read_block
