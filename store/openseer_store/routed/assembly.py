"""Assembly of a result's rows from the files of its leases and of its prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from openseer_core.queue.messages import APPEND, Result
from openseer_core.routed_rows import RowShape, Stretch
from openseer_core.tokens import ITEM_BYTES, count_items
from openseer_store.routed.folders import read_files
from openseer_store.routed.places import context_file, group_folder, lease_file, prompt_file
from openseer_store.routed.records import read_records


@dataclass(frozen=True, slots=True, weakref_slot=True)
class RoutedExperts:
    """Rows of the first `count` positions of prompt and response: all but the last token, which no step has processed.

    `rows`: the rows of all positions in order; a missing row consists of zeros. `missing`: spans [start, end) of
    positions without a row. `shape`: None if there are no rows.
    """

    count: int
    rows: bytes | bytearray
    shape: RowShape | None
    missing: tuple[tuple[int, int], ...]

    @property
    def gaps(self) -> int:
        """Number of missing rows."""
        return sum(end - start for start, end in self.missing)

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """[positions, layers, experts]."""
        return (self.count, self.shape.layers, self.shape.experts) if self.shape else (self.count, 0, 0)


class _Rows:
    """Rows of `count` positions, collected from files."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._shape: RowShape | None = None
        self._rows = bytearray()
        self._found = bytearray(count)

    def put(self, shape: RowShape, stretch: Stretch, limit: int) -> None:
        """Adds the rows of a stretch at positions below `limit`. Rows of another shape than the first row belong to
        another model, and count as missing."""
        if self._shape is None:
            self._shape, self._rows = shape, bytearray(self._count * shape.row_bytes)
        end = min(stretch.start + len(stretch.rows) // shape.row_bytes, limit, self._count)
        if shape != self._shape or end <= stretch.start:
            return
        size = shape.row_bytes
        self._rows[stretch.start * size : end * size] = stretch.rows[: (end - stretch.start) * size]
        self._found[stretch.start : end] = b"\1" * (end - stretch.start)

    def whole(self) -> RoutedExperts:
        return RoutedExperts(self._count, self._rows, self._shape, tuple(_spans(self._found)))


class RowFile(NamedTuple):
    """A file of a result's group that may contain rows of the result; rows from position `limit` on are ignored."""

    name: str
    limit: int


def assemble(folder: Path, result: Result) -> RoutedExperts:
    """The rows of a result, from its job's folder. Unreadable rows count as missing; no exception is raised."""
    files = list(row_files(result))
    place = group_folder(folder, result.request.group)
    return put_together(result, files, read_files(place, [file.name for file in files]))


def rows_bytes(result: Result, files: Sequence[RowFile], contents: Sequence[bytes | memoryview]) -> int:
    """Size in bytes of the rows that `put_together` returns, computed from the row length in the first record."""
    records = (record for file, data in zip(files, contents, strict=True) for record in read_records(file.name, data))
    first = next(records, None)
    return _row_count(result) * first[0].row_bytes if first is not None else 0


def put_together(result: Result, files: Sequence[RowFile], contents: Sequence[bytes | memoryview]) -> RoutedExperts:
    """The rows of a result. `contents`: the content of each file, empty for a missing file.

    The rows of a lease count up to the last token that the store accepted from the lease: later rows belong to
    discarded tokens. If two leases have a row of one position, the later lease counts, because it sampled the following
    tokens.
    """
    rows = _Rows(_row_count(result))
    for (name, limit), data in zip(files, contents, strict=True):
        for shape, stretch in read_records(name, data):
            rows.put(shape, stretch, limit)
    return rows.whole()


def _row_count(result: Result) -> int:
    return max(0, count_items(result.prompt) + count_items(result.tokens) - 1)


def row_files(result: Result) -> Iterator[RowFile]:
    """The files that may contain rows of a result; a later file takes precedence over an earlier one.

    If several weights versions sampled the response, a position's row is that of the version that sampled the following
    token.
    """
    prompt = count_items(result.prompt)
    yield RowFile(prompt_file(_next_version(result, 0), result.prompt), prompt - 1)
    for place, chunk in enumerate(result.chunks):
        if chunk.event == APPEND:
            context = result.prompt + result.tokens[: chunk.end * ITEM_BYTES]
            yield RowFile(context_file(_next_version(result, place), context), prompt + chunk.end - 1)
        if chunk.worker:
            yield RowFile(lease_file(result.request, chunk.start, chunk.fence, chunk.worker), prompt + chunk.end)


def _next_version(result: Result, place: int) -> str:
    """The version that sampled the first token generated in a lease, from the chunk at `place` on. If no lease
    generated a token, the version of the last lease."""
    leases = [chunk for chunk in result.chunks[place:] if chunk.worker and chunk.version]
    generating = (chunk.version for chunk in leases if chunk.end > chunk.start)
    return next(generating, leases[-1].version if leases else result.version)


def _spans(found: bytearray) -> Iterator[tuple[int, int]]:
    """Spans of positions without a row."""
    at = found.find(0)
    while at >= 0:
        end = found.find(1, at)
        yield at, end if end >= 0 else len(found)
        at = found.find(0, end) if end >= 0 else -1
