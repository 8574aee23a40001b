"""Keeps rendered groups on disk, in order, so that they can be submitted again if the store loses them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

import msgspec

from openseer_core.errors import OutputError
from openseer_core.queue.group import GroupSpec

_LENGTH_BYTES = 4


class GroupSpool:
    """`with GroupSpool(folder) as spool`: groups in an unnamed file of the folder, which disappears with the process.

    `groups`, `requests`: their numbers so far. After the last `add` the spool can be iterated several times, one after
    the other. Raises OutputError if the disk fails.
    """

    def __init__(self, folder: Path) -> None:
        self.groups = self.requests = 0
        self._folder = folder
        self._encoder, self._decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(GroupSpec)
        try:
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - the spool holds it
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> "GroupSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # closing tries to write buffered data again
            self._file.close()

    def add(self, groups: Iterable[GroupSpec]) -> int:
        """Appends groups and returns their number. Raises OutputError if they do not fit."""
        before = self.groups
        try:
            for group in groups:
                data = self._encoder.encode(group)
                self._file.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
                self._file.write(data)
                self.groups += 1
                self.requests += group.size
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error
        return self.groups - before

    def __iter__(self) -> Iterator[GroupSpec]:
        try:
            self._file.seek(0)
            while length := self._file.read(_LENGTH_BYTES):
                yield self._decoder.decode(self._file.read(int.from_bytes(length, "little")))
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._folder}: cannot store the rendered prompts: {error.strerror}; no data are lost: free disk space "
            "or repair the folder, and run the same command again"
        )
