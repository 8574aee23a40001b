"""The folder of a run: names its files, reads them, and writes results durably."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_driver.folder_lock import WAIT_SECONDS, held, is_locked, lock
from openseer_driver.result_keys import ResultKeys
from openseer_driver.run_lines import FactLine, KeyLine, ResultKey, ResultLine, RunRecord, SampleLine
from openseer_store.embedded import LOCK_FILE

RUN_FILE = "run.json"
JOB_FILE = "job.json"
RESULTS_FILE = "results.jsonl"
SAMPLES_FILE = "samples.jsonl"
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"
AUDIT_FILE = "audit.json"
TRACE_FILE = "trace.json.gz"
STORE_FOLDER = "store"
LOGS_FOLDER = "logs"
ROWS_FOLDER = "rows"
ROUTED_FOLDER = "routed_experts"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PIECE = 1 << 20

Line = TypeVar("Line")


class RunFolder:
    """The files of one run. Reading changes nothing and is safe during the run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.run_file = self.path / RUN_FILE
        self.job_file = self.path / JOB_FILE
        self.results_file = self.path / RESULTS_FILE
        self.samples_file = self.path / SAMPLES_FILE
        self.report_file = self.path / REPORT_FILE
        self.report_page = self.path / REPORT_PAGE
        self.audit_file = self.path / AUDIT_FILE
        self.trace_file = self.path / TRACE_FILE
        self.store_folder = self.path / STORE_FOLDER
        self.logs_folder = self.path / LOGS_FOLDER
        self.rows_folder = self.path / ROWS_FOLDER
        self.routed_folder = self.path / ROUTED_FOLDER

    @property
    def is_written(self) -> bool:
        """Whether a session writes results here now. The check itself holds the lock for microseconds, and a session
        that begins in this time fails."""
        return self.results_file.exists() and is_locked(self.results_file)

    @property
    def name(self) -> str:
        """The folder's name, which is the job's name."""
        return self.path.resolve().name

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self.run_file.is_file()

    def create(self, *inside: Path) -> None:
        """Creates the folder and the folders `inside` it. Raises OutputError."""
        try:
            for folder in (self.path, *inside):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{error.filename}: cannot make the run's folder: {error.strerror}") from error

    def clear(self, locked: Path) -> None:
        """Deletes the files of an earlier run. Truncates `locked`, the file whose lock the caller holds.

        run.json is deleted last, so an interrupted call can be repeated; a folder without run.json is left unchanged.
        Raises FolderHeldError if a store still runs in the folder after WAIT_SECONDS, else OutputError.
        """
        if not self.exists():
            return
        store_lock = self.store_folder / LOCK_FILE
        try:
            with held(store_lock, WAIT_SECONDS) if store_lock.exists() else nullcontext():
                os.truncate(locked, 0)
                for path in sorted(self.path.iterdir(), key=lambda path: path == self.run_file):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    elif path != locked:
                        path.unlink()
        except OSError as error:
            raise OutputError(f"{error.filename}: cannot be deleted: {error.strerror}") from error

    # ---- run.json

    def read_run(self) -> RunRecord:
        """Reads run.json. Raises InputError if the file is missing or damaged."""
        try:
            return msgspec.json.decode(self.run_file.read_bytes(), type=RunRecord)
        except FileNotFoundError as error:
            raise InputError(
                f"{self.path}: no {RUN_FILE} here: not the folder of a run; runs are in runs/NAME by default"
            ) from error
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{self.run_file}: cannot be read: {error}") from error

    def write_run(self, record: RunRecord) -> None:
        """Replaces run.json atomically: a crash leaves the old file or the new one."""
        self.write_whole(self.run_file, msgspec.json.format(msgspec.json.encode(record)) + b"\n")

    def write_whole(self, path: Path, data: bytes) -> None:
        """Replaces a file of the folder atomically and durably. Raises OutputError."""
        draft = draft_of(path)
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error

    # ---- lines

    def results(self) -> Iterator[ResultLine]:
        """Results in the order in which they finished, without a torn last line (see `torn_bytes`)."""
        return _lines(self.results_file, ResultLine)

    def sized_results(self) -> Iterator[tuple[ResultLine, int]]:
        """Results in the order in which they finished, each with the size of its line in bytes."""
        return _sized_lines(self.results_file, ResultLine)

    def sized_keys(self) -> Iterator[tuple[KeyLine, int]]:
        """Keys of the results, each with the size of its line in bytes."""
        return _sized_lines(self.results_file, KeyLine)

    def facts(self) -> Iterator[FactLine]:
        """Results without tokens, texts and log-probabilities: many times faster to read than whole results."""
        return _lines(self.results_file, FactLine)

    def samples(self) -> Iterator[SampleLine]:
        """Samples in order. Broken lines are skipped: samples are telemetry and not written durably."""
        decoder = msgspec.json.Decoder(SampleLine)
        for line in _file_lines(self.samples_file):
            try:
                sample = decoder.decode(line)
            except msgspec.DecodeError:
                continue
            yield sample

    def torn_bytes(self) -> int:
        """Size of a torn last line, in bytes (0: none). The next session cuts the line and writes the result again."""
        if not self.results_file.exists():
            return 0
        with self.results_file.open("rb") as file:
            return os.fstat(file.fileno()).st_size - _whole_size(file.fileno())


def draft_of(path: Path) -> Path:
    """Path of a temporary file in the same folder, renamed to `path` once complete; unique, since other processes may
    write `path` too."""
    return path.with_name(f".openseer-{uuid4().hex}")


class ResultsWriter:
    """Appends results, each completely or not at all. A lock on the file allows one writer per run folder.

    `present`: the keys of all results in the file, earlier sessions included. `fresh`: the folder is cleared first.
    """

    def __init__(self, folder: RunFolder, *, fresh: bool = False) -> None:
        self.path = folder.results_file
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            lock(self._fd, self.path)
            if fresh:
                folder.clear(self.path)
                os.ftruncate(self._fd, 0)
            self.dropped_bytes = self._cut_torn_line()
            """Bytes of a torn last line that opening removed."""
            self.present = ResultKeys((line.batch, line.group, line.index) for line in self._keys())
        except BaseException:
            os.close(self._fd)
            raise
        self.count = len(self.present)
        """Number of results in the file."""
        self._size = self._synced_size = os.fstat(self._fd).st_size
        self._unsynced: list[ResultKey] = []

    def __enter__(self) -> "ResultsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, lines: Sequence[ResultLine]) -> int:
        """Appends the results that are not present yet, in one write, and returns their number.

        The results are durable only after `flush`. Raises OutputError if they cannot be written; the file then has none
        of them.
        """
        fresh = list({line.key: line for line in lines if line.key not in self.present}.values())
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in fresh)
        try:
            _write_all(self._fd, data)
        except OSError as error:
            self._back_to(self._size)
            raise self._failure(error) from error
        self._size += len(data)
        self.present.update(line.key for line in fresh)
        self._unsynced += [line.key for line in fresh]
        self.count += len(fresh)
        return len(fresh)

    def flush(self) -> None:
        """Waits until all written results are on the disk. Raises OutputError after removing the unsynced results."""
        if not self._unsynced:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._forget_unsynced()
            raise self._failure(error) from error
        self._synced_size = self._size
        self._unsynced.clear()

    def close(self) -> None:
        """Closes the file and releases its lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cut_torn_line(self) -> int:
        size, whole = os.fstat(self._fd).st_size, _whole_size(self._fd)
        if whole < size:
            os.ftruncate(self._fd, whole)
            os.fsync(self._fd)
        _sync_folder(self.path.parent)
        return size - whole

    def _keys(self) -> Iterator[KeyLine]:
        return _lines(self.path, KeyLine)

    def _back_to(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def _forget_unsynced(self) -> None:
        self._back_to(self._synced_size)
        self._size = self._synced_size
        self.present.remove(self._unsynced)
        self.count -= len(self._unsynced)
        self._unsynced.clear()

    def _failure(self, error: OSError) -> OutputError:
        # Results of an earlier write may not be on the disk yet: sync them, so that the count of safe results is right.
        if self._unsynced:
            try:
                self.flush()
            except OutputError as unsynced:
                return unsynced
        what = "disk full" if error.errno in _FULL else str(error.strerror)
        cure = "free space" if error.errno in _FULL else "repair that"
        safe = f"{self.count} result{'s are' if self.count != 1 else ' is'} safe"
        return OutputError(f"{self.path}: {what} while writing results; {safe}; {cure} and run the same command again")


def _lines(path: Path, kind: type[Line]) -> Iterator[Line]:
    return (line for line, _ in _sized_lines(path, kind))


def _sized_lines(path: Path, kind: type[Line]) -> Iterator[tuple[Line, int]]:
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(takewhile(lambda line: line.endswith(b"\n"), _file_lines(path)), start=1):
        try:
            yield decoder.decode(line), len(line)
        except msgspec.DecodeError as error:
            raise InputError(f"{path}, line {number}: not a result: {error}") from error


def _file_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; none if the file is missing. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _whole_size(fd: int) -> int:
    """Size of the file up to and including its last line end, searched from the end."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _PIECE)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write_all(fd: int, data: bytes) -> None:
    # On a disk that becomes full a call writes a part of the data, and the next call raises the error.
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
