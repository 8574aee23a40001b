"""The rows of a Parquet or Arrow file as maps of JSON values, in a stream."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from openseer_driver.prompts.formats import FileFormat, RowsError

BATCH_ROWS = 256
"""Limit of rows in memory; more only if the layout of the file requires it."""
BATCH_BYTES = 4 << 20
"""Limit of bytes in memory, in the file's encoding; larger rows are read one at a time."""
BUFFER_BYTES = 1 << 20
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of a complete Arrow stream."""


def table_rows(path: Path, file_format: FileFormat, columns: Collection[str] | None) -> Iterator[Mapping[str, Any]]:
    """All rows of a table in order. `columns`: the columns to read, as in spec.prompts.fields; None: all.

    Raises RowsError, also for a column of a type that JSON does not have; OSError.
    """
    try:
        import pyarrow  # noqa: PLC0415 - optional
    except ImportError:
        raise RowsError("Parquet and Arrow files need pyarrow: pip install 'openseer[datasets]'") from None
    try:
        for batch in _batches(pyarrow, path, file_format, columns):
            size = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
            for start in range(0, batch.num_rows, size):
                yield from batch.slice(start, size).to_pylist(maps_as_pydicts="strict")
    except RowsError:
        raise
    except (pyarrow.ArrowException, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise RowsError(f"the {file_format} data cannot be read: {reason}") from error


def _batches(pyarrow: Any, path: Path, file_format: FileFormat, columns: Collection[str] | None) -> Iterator[Any]:
    if file_format == "parquet":
        from pyarrow import parquet  # noqa: PLC0415 - optional

        # Without `buffer_size`, or with `pre_buffer`, a whole row group would be in memory.
        with parquet.ParquetFile(
            path, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        ) as file:
            needed = _needed(pyarrow, file.schema_arrow, columns)
            yield from file.iter_batches(_rows_at_once(file.metadata), columns=needed, use_threads=False)
        return
    from pyarrow import ipc  # noqa: PLC0415 - as above

    with pyarrow.OSFile(str(path)) as source:
        if file_format == "arrow stream":
            _require_end(path)
            stream = ipc.open_stream(source)
            needed = _needed(pyarrow, stream.schema, columns)
            for batch in stream:
                yield batch.select(needed)
            return
        file = ipc.open_file(source)
        needed = _needed(pyarrow, file.schema, columns)
        for number in range(file.num_record_batches):
            yield file.get_batch(number).select(needed)


def _rows_at_once(metadata: Any) -> int:
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, size)))


def _require_end(path: Path) -> None:
    """Raises RowsError for a truncated stream. pyarrow reads a stream cut between two batches as a shorter stream."""
    with path.open("rb") as file:
        file.seek(-min(len(STREAM_END), path.stat().st_size), os.SEEK_END)
        if file.read() != STREAM_END:
            raise RowsError("the arrow stream is cut off: the mark of its end is missing; write or copy it again")


def _needed(pyarrow: Any, schema: Any, columns: Collection[str] | None) -> list[str]:
    """Names of the columns to read. All columns if a requested one is missing, so that a message can list them."""
    names: list[str] = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RowsError(f"column {twice[0]}: found {names.count(twice[0])} times, allowed: once; rename the others")
    found: dict[str, None] = {}
    for column in names if columns is None else columns:
        head, *inside = [column] if column in names else column.split(".")
        if head not in names:
            return names
        found[head] = None
        kind = _inside(pyarrow.types, schema.field(head).type, inside)
        if kind is not None:
            _require_json(pyarrow, kind, column)
    return list(found)


def _inside(types: Any, kind: Any, path: Sequence[str]) -> Any:
    """The type of the field at `path` within nested maps; None if the path does not exist."""
    for name in path:
        place = kind.get_field_index(name) if types.is_struct(kind) else -1
        if place < 0:
            return None
        kind = kind.field(place).type
    return kind


def _require_json(pyarrow: Any, kind: Any, place: str) -> None:
    """Raises RowsError for a type that JSON does not have, also inside another type."""
    types = pyarrow.types
    if isinstance(kind, pyarrow.BaseExtensionType):
        _require_json(pyarrow, kind.storage_type, place)
    elif types.is_struct(kind):
        for field in kind:
            _require_json(pyarrow, field.type, f"{place}.{field.name}")
    elif types.is_map(kind) and _is_text(types, kind.key_type):
        _require_json(pyarrow, kind.item_type, f"{place}.*")
    elif _is_list(types, kind):
        _require_json(pyarrow, kind.value_type, f"{place}[]")
    elif types.is_dictionary(kind):
        _require_json(pyarrow, kind.value_type, place)
    elif not (_is_text(types, kind) or _is_plain(types, kind)):
        raise RowsError(
            f"column {place}: found {kind}, allowed: types that JSON has (text, numbers, true, false, null, lists and "
            "maps); convert it in the file, or leave it out (spec.prompts.fields)"
        )


def _is_list(types: Any, kind: Any) -> bool:
    names = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(types, name)(kind) for name in names)


def _is_text(types: Any, kind: Any) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_plain(types: Any, kind: Any) -> bool:
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)
