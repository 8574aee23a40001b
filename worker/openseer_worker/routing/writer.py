"""Appends rows to files in a separate thread, because a folder on a volume may be slow, or hang."""

import asyncio
import errno
import logging
import os
import tempfile
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from openseer_core.errors import InputError
from openseer_worker.kv_pool.daemons import DaemonThreads
from openseer_worker.kv_pool.free_space import FreeSpace

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
"""Timeout of a read or write of the folder, in seconds; rows written later may come too late for a result."""
MOST_OPEN = 256
"""Limit of files that are kept open; others are opened again for each write."""
UNSAVED_BYTES = 256 * 2**20
"""Limit of memory for rows that wait to be written, in bytes; rows beyond it are lost."""
REPORT_SECONDS = 30.0
"""Interval of warnings about a folder that takes no rows, in seconds."""


def check_rows_folder(folder: Path | None) -> None:
    """Creates the folder. Raises InputError if there is none, or it cannot be written to."""
    if folder is None:
        raise InputError("spec.routing.capture: this worker was given no folder for rows; start it with --routed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise InputError(
            f"spec.routing.capture: {folder}: workers cannot write there: {error.strerror}; mount a volume, or name "
            "another folder that the workers and the process that returns results share"
        ) from error


class RowWriter:
    """Appends to files in one folder. `lost_bytes`: bytes of rows that were not written."""

    def __init__(self, folder: Path) -> None:
        self.lost_bytes = 0
        self._threads = DaemonThreads(1, "openseer-routes")
        self._space = FreeSpace(folder, is_swept=False)
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._unsaved = 0
        self._late: Future[Any] | None = None
        self._mark = uuid.uuid4().hex
        self._reported_at = float("-inf")

    async def ask(self, files: Sequence[Path], is_whole: Callable[[Path], bool]) -> list[bool]:
        """Returns, for each of the files, whether it is whole; all False if the folder does not answer in time. The
        thread calls `is_whole`; a file that cannot be read is not whole. After a timeout, calls return at once until
        the late read has ended."""

        def look(file: Path) -> bool:
            with suppress(OSError):
                return is_whole(file)
            return False

        if self._is_late:
            return [False] * len(files)
        asked = self._threads.submit(lambda: [look(file) for file in files])
        if not asked.done():
            await asyncio.wait({asyncio.wrap_future(asked)}, timeout=WAIT_SECONDS)
        if not asked.done():
            self._late = self._late if self._is_late else asked
            return [False] * len(files)
        try:
            return asked.result()
        except TimeoutError:  # the thread's queue is full: this call was not queued
            return [False] * len(files)

    async def append(self, pieces: Sequence[tuple[Path, bytes]], ended: Sequence[Path] = ()) -> None:
        """Appends to each file, and closes the `ended` files: other machines read a volume's file once it is closed.

        Returns when this is done, or after WAIT_SECONDS. After a timeout, calls return at once until the late read or
        write has ended.
        """

        def write() -> None:
            for piece in pieces:
                self._append(*piece)
            for file in ended:
                self._close(file)

        await self._write(sum(len(data) for _, data in pieces), write)

    async def put(self, file: Path, data: bytes) -> bool:
        """Writes a whole file, in place of an existing one; returns False if it has failed or not ended in time."""
        return await self._write(len(data), lambda: self._put(file, data))

    def close(self, files: Sequence[Path]) -> None:
        """Closes these files."""
        self._threads.submit(lambda: [self._close(file) for file in files])

    @property
    def _is_late(self) -> bool:
        """Whether a read or write has timed out and not ended since: waiting again would let leases expire."""
        return self._late is not None and not self._late.done()

    async def _write(self, size: int, write: Callable[[], object]) -> bool:
        """Calls `write`, for `size` bytes, in the thread; returns False if it has failed or not ended in time."""
        if self._unsaved + size > UNSAVED_BYTES:
            self._lose(size, f"{self._unsaved >> 20} MiB of rows already wait to be written")
            return False
        self._unsaved += size
        written = self._threads.submit(self._guarded, write, size)
        if not written.done() and not self._is_late:
            await asyncio.wait({asyncio.wrap_future(written)}, timeout=WAIT_SECONDS)
        if not written.done():
            self._late = self._late if self._is_late else written
            return False
        try:
            return written.result()
        except TimeoutError as error:  # the thread's queue is full: this call was not queued
            self._unsaved -= size
            self._lose(size, str(error))
            return False

    def _guarded(self, write: Callable[[], object], size: int) -> bool:
        try:
            self._space.check()
            write()
        except OSError as error:
            self._lose(size, str(error))
            return False
        finally:
            self._unsaved -= size
        return True

    def _append(self, file: Path, data: bytes) -> None:
        handle = self._open.pop(file, None)
        if handle is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._open[file] = handle
        while len(self._open) > MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        written = os.write(handle, data)
        if written < len(data):
            # Readers stop at a torn record.
            os.ftruncate(handle, os.fstat(handle).st_size - written)
            raise OSError(errno.ENOSPC, "only a part of a record was written", str(file))

    def _put(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{self._mark}")
        try:
            partial.write_bytes(data)
            partial.replace(file)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise

    def _close(self, file: Path) -> None:
        handle = self._open.pop(file, None)
        if handle is not None:
            os.close(handle)

    def _lose(self, size: int, why: str) -> None:
        self.lost_bytes += size
        if time.monotonic() - self._reported_at >= REPORT_SECONDS:
            self._reported_at = time.monotonic()
            log.warning("routed experts are not written, results will lack rows: %s", why)
