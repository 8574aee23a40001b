"""A pool whose reads hang: what tests of the worker's side and of whole engines share."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hanging(folder: Path) -> Generator[threading.Event]:
    """Reads of block files in a folder wait for the event, which the end of the `with` sets at last."""
    from openseer_worker.vllm.kv_pool import transfers  # noqa: PLC0415 - heavy

    release, read_block = threading.Event(), transfers.read_block

    def wait_and_read(path: Path, into: memoryview) -> None:
        if path.parent == folder:
            release.wait()
        read_block(path, into)

    transfers.read_block = wait_and_read
    try:
        yield release
    finally:
        release.set()
        transfers.read_block = read_block
