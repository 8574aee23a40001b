"""Reads the rows of one prompt file in a stream: lines as bytes, rows of a Parquet or Arrow file as maps."""

import gzip
import stat
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from openseer_driver.prompts.formats import ALLOWED, BOM, HEAD_BYTES, FileFormat, RowsError, foreign, format_of
from openseer_driver.prompts.tables import table_rows

LINE_BYTES = 64 << 20
"""Limit of a line's size, in bytes."""

Content = bytes | Mapping[str, Any]


def unit_of(file_format: FileFormat) -> str:
    """The word for a row of a file of this format, for messages."""
    return "line" if file_format in ("lines", "gzip") else "row"


def sniff(path: Path) -> FileFormat:
    """The format of a file. Raises RowsError if it cannot be read, OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        # Opening a pipe may block forever, and a source is read several times.
        raise RowsError(f"found a pipe or a device, allowed: {ALLOWED}; write its output to a file first")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    file_format = format_of(head)
    if file_format == "lines":
        _require_lines(head)
    return file_format


def read_rows(path: Path, file_format: FileFormat, columns: Collection[str] | None = None) -> Iterator[Content]:
    """All rows of a file in order. `columns`: columns of a table to read; None: all.

    Raises RowsError, OSError.
    """
    if file_format == "lines":
        with path.open("rb") as file:
            yield from _lines(file.readline)
    elif file_format == "gzip":
        yield from _gzip_lines(path)
    else:
        yield from table_rows(path, file_format, columns)


def _require_lines(head: bytes) -> None:
    problem = foreign(head)
    if problem:
        raise RowsError(problem)


def _lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    mark = BOM
    while line := readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise RowsError(f"found a line of more than {LINE_BYTES >> 20} MiB, allowed: a prompt a line")
        yield line.removeprefix(mark)
        mark = b""


def _gzip_lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) as file:
            head = file.read(HEAD_BYTES)
            if format_of(head) != "lines":
                raise RowsError(f"found {format_of(head)} data within gzip; unpack it once")
            _require_lines(head)
            file.seek(0)
            yield from _lines(file.readline)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RowsError(f"the gzip data is damaged or cut off: {error}") from error
