"""Exports a run's results as a Parquet file, for pandas, `datasets` and similar libraries."""

# pyarrow has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_driver.run_folder import RESULTS_FILE, RunFolder, draft_of
from openseer_driver.run_lines import ResultLine

PIECE_ROWS = 1024
PIECE_BYTES = 8 << 20
"""Limits of a row group: rows, and bytes of result lines. In memory a row group needs up to fifteen times the bytes."""


def export_parquet(folder: RunFolder, output: Path) -> int:
    """Writes the results that the folder has now, in their order, and returns their number.

    Columns have the names of a result line's fields; `metadata` is JSON text. Replaces an older file atomically. Raises
    InputError, OutputError.
    """
    try:
        import pyarrow  # noqa: PLC0415 - optional
        from pyarrow import parquet  # noqa: PLC0415 - optional
    except ImportError:
        raise InputError("Parquet files need pyarrow: pip install 'openseer[datasets]'") from None
    folder.read_run()
    if not folder.results_file.is_file():
        raise InputError(
            f"{folder.path}: no {RESULTS_FILE} in this folder; the results of a serving job are with its trainer"
        )
    schema = _schema(pyarrow)
    draft = draft_of(output)
    rows = 0
    try:
        with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
            for piece in _pieces(folder.sized_results()):
                writer.write_table(pyarrow.Table.from_pylist(piece, schema=schema))
                rows += len(piece)
        draft.replace(output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return rows


def _schema(arrow: Any) -> Any:
    text, whole, number = arrow.string(), arrow.int64(), arrow.float64()
    token = arrow.int32()

    def record(**fields: Any) -> Any:
        return arrow.struct(list(fields.items()))

    chunk = {"worker": text, "fence": whole, "start": whole, "end": whole}
    routed = {"file": text, "start": whole, "shape": arrow.list_(whole), "dtype": text, "gaps": whole}
    columns = {
        "batch": whole,
        "group": text,
        "index": whole,
        "weights_version": text,
        "status": text,
        "finish_reason": text,
        "stop_reason": text,
        "prompt_token_ids": arrow.list_(token),
        "prompt_template_hash": text,
        "token_ids": arrow.list_(token),
        "logprobs": arrow.list_(number),
        "logprobs_of": text,
        "text": text,
        "metadata": text,
        "chunks": arrow.list_(record(**chunk, claimed_at=number, ended_at=number, event=text)),
        "workers": arrow.list_(text),
        "timings": record(enqueued_at=number, started_at=number, finished_at=number, seconds=number),
        "cursor": whole,
        "top_logprobs": arrow.list_(arrow.list_(record(token_id=token, logprob=number))),
        "routed_experts": record(**routed, missing=arrow.list_(record(start=whole, end=whole))),
    }
    return arrow.schema(list(columns.items()))


def _pieces(results: Iterator[tuple[ResultLine, int]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yields the rows of each row group, always in the same list: its content is valid until the next step."""
    piece: list[Mapping[str, Any]] = []
    held = 0
    for line, size in results:
        if len(piece) >= PIECE_ROWS or (piece and held + size > PIECE_BYTES):
            yield piece
            piece.clear()
            held = 0
        piece.append(_row(line))
        held += size
    if piece:
        yield piece


def _row(line: ResultLine) -> Mapping[str, Any]:
    row = msgspec.to_builtins(line)
    row["metadata"] = None if line.metadata is None else json.dumps(line.metadata, ensure_ascii=False)
    return row
