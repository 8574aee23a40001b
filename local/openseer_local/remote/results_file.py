"""A file of results, which a later command continues: whole lines only, each safe before it is acknowledged."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_core.wire.batches import GroupItem, ResultItem
from openseer_driver.report.failures import FailureCount


class _Position(msgspec.Struct):
    """The part of a line that says where reading continues, and of a result whether it failed."""

    kind: str
    batch: int
    cursor: int
    status: str = ""
    group: str = ""
    index: int = 0
    stop_reason: str | None = None


class ResultsFile:
    """The results of one batch, appended to. `cursor`: of its last entry, 0 for none; `results`: how many it holds;
    `failures`: those of them that failed.

    One writer at a time. A torn last line, as a kill leaves it, is dropped and read again.
    Raises InputError for a file that holds something else, OutputError when it cannot be written.
    """

    def __init__(self, path: Path, batch: int) -> None:
        self.path = path
        self.cursor = 0
        self.results = 0
        self.failures = FailureCount()
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path}: is no file that could be gone on with; without --output, results go to the terminal"
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
        """Appends entries, all or none of them."""
        size = self._size()
        data = b"".join(item.model_dump_json().encode() + b"\n" for item in items)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise OutputError(
                f"{self.path}: {error.strerror}; what is written is whole, and the same command goes on from there"
            ) from error
        for item in items:
            self._count(item)
        self.cursor = items[-1].cursor if items else self.cursor

    def sync(self) -> None:
        """Returns once the disk has it."""
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
            raise OutputError(f"{self.path}: another command is writing here") from error

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
                    raise InputError(f"{self.path} line {number}: no result of a batch; name another file") from error
                if position.batch != batch:
                    raise InputError(f"{self.path}: holds results of batch {position.batch}; name another file")
                whole += len(line)
                self.cursor = max(self.cursor, position.cursor)
                self._count(position)
        os.ftruncate(self._file.fileno(), whole)
