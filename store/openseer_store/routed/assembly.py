"""A result's rows, put together from the files of its leases and of its prompt."""

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
    """Rows of the first `count` positions of prompt and response: all but the last token's, which nobody computed.

    `rows`: one after another, zeros where one is missing. `missing`: spans [start, end) of positions without a row.
    `shape`: None where nothing is there.
    """

    count: int
    rows: bytes | bytearray
    shape: RowShape | None
    missing: tuple[tuple[int, int], ...]

    @property
    def gaps(self) -> int:
        """How many rows are missing."""
        return sum(end - start for start, end in self.missing)

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """[positions, layers, experts]."""
        return (self.count, self.shape.layers, self.shape.experts) if self.shape else (self.count, 0, 0)


class _Rows:
    """Rows of `count` positions, as they are found."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._shape: RowShape | None = None
        self._rows = bytearray()
        self._found = bytearray(count)

    def put(self, shape: RowShape, stretch: Stretch, limit: int) -> None:
        """Takes those of a stretch that lie before `limit`. Rows of another shape than the first ones are of another
        model: they count as missing."""
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
    """A file of a result's group that may hold rows of the result; they count up to the position `limit`."""

    name: str
    limit: int


def assemble(folder: Path, result: Result) -> RoutedExperts:
    """The rows of a result, from its job's folder. What cannot be read is missing; it raises nothing."""
    files = list(row_files(result))
    place = group_folder(folder, result.request.group)
    return put_together(result, files, read_files(place, [file.name for file in files]))


def rows_bytes(result: Result, files: Sequence[RowFile], contents: Sequence[bytes | memoryview]) -> int:
    """How many bytes `put_together` would make of them: the first record says how long a row is."""
    records = (record for file, data in zip(files, contents, strict=True) for record in read_records(file.name, data))
    first = next(records, None)
    return _row_count(result) * first[0].row_bytes if first is not None else 0


def put_together(result: Result, files: Sequence[RowFile], contents: Sequence[bytes | memoryview]) -> RoutedExperts:
    """The rows of a result. `contents`: of each of its files, empty for one that is not there.

    A lease's row counts up to the last token that the store took from it: beyond, others came instead. Where two leases
    have a row, that of the later one counts, which sampled what follows.
    """
    rows = _Rows(_row_count(result))
    for (name, limit), data in zip(files, contents, strict=True):
        for shape, stretch in read_records(name, data):
            rows.put(shape, stretch, limit)
    return rows.whole()


def _row_count(result: Result) -> int:
    return max(0, count_items(result.prompt) + count_items(result.tokens) - 1)


def row_files(result: Result) -> Iterator[RowFile]:
    """The files that may hold rows of a result, those that count for more later.

    Of several versions of weights that one's rows count from which the token after them was sampled.
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
    """From which the first token was sampled that a lease generated, from the chunk at `place` on; where none was, of
    the last lease."""
    leases = [chunk for chunk in result.chunks[place:] if chunk.worker and chunk.version]
    generating = (chunk.version for chunk in leases if chunk.end > chunk.start)
    return next(generating, leases[-1].version if leases else result.version)


def _spans(found: bytearray) -> Iterator[tuple[int, int]]:
    """Where nothing was found."""
    at = found.find(0)
    while at >= 0:
        end = found.find(1, at)
        yield at, end if end >= 0 else len(found)
        at = found.find(0, end) if end >= 0 else -1
