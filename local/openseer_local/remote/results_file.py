"""A file of results that a later command can continue: complete lines only, each on disk before it is acknowledged."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_core.wire.results import GroupItem, ResultItem
from openseer_driver.report.failures import FailureCount


class _Position(msgspec.Struct):
    """The fields of a line that are read again: its place in the results stream, and the status of a result."""

    kind: str
    batch: int
    cursor: int
    status: str = ""
    group: str = ""
    index: int = 0
    stop_reason: str | None = None


class ResultsFile:
    """A file to which the results of one batch are appended. `cursor`: cursor of the last entry, 0 without entries;
    `results`: number of results; `failures`: count of failed results.

    One process may write at a time. An incomplete last line, left by a kill, is removed and its entry is fetched again.
    Raises InputError for a file with other content, OutputError if it cannot be written.
    """

    def __init__(self, path: Path, batch: int) -> None:
        self.path = path
        self.cursor = 0
        self.results = 0
        self.failures = FailureCount()
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path}: not a regular file, so it cannot be continued; without --output, results go to the terminal"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise OutputError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            self._lock()
            self._read(batch)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, items: Sequence[ResultItem | GroupItem]) -> None:
        """Appends all entries, or none of them. Raises OutputError."""
        size = self._size()
        data = b"".join(item.model_dump_json().encode() + b"\n" for item in items)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise OutputError(
                f"{self.path}: {error.strerror}; written lines are complete, and the same command resumes after them"
            ) from error
        for item in items:
            self._count(item)
        self.cursor = items[-1].cursor if items else self.cursor

    def sync(self) -> None:
        """Waits until all written lines are on disk. Raises OutputError."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    def _count(self, entry: ResultItem | GroupItem | _Position) -> None:
        if entry.kind == "result" and not isinstance(entry, GroupItem):
            self.results += 1
            self.failures.take(entry.status, entry.group, entry.index, entry.stop_reason)

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{self.path}: another command is writing to this file") from error

    def _read(self, batch: int) -> None:
        decoder = msgspec.json.Decoder(_Position)
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    position = decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise InputError(
                        f"{self.path} line {number}: not a result of a batch; name another file"
                    ) from error
                if position.batch != batch:
                    raise InputError(f"{self.path}: holds results of batch {position.batch}; name another file")
                whole += len(line)
                self.cursor = max(self.cursor, position.cursor)
                self._count(position)
        os.ftruncate(self._file.fileno(), whole)
