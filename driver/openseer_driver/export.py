"""A run's results as a Parquet file, for pandas, `datasets` and their kind."""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_driver.run_folder import RESULTS_FILE, RunFolder
from openseer_driver.run_lines import ResultLine

PIECE_ROWS = 1024
PIECE_TOKENS = 1 << 20
"""A row group ends with so many rows, or tokens of responses: it is in memory as a whole."""


def export_parquet(folder: RunFolder, output: Path) -> int:
    """Writes the results that there are, in their order; how many. An older file is replaced once the new one is whole.

    Columns are the names of a result line; metadata are text in JSON. Raises InputError, OutputError.
    """
    try:
        import pyarrow  # noqa: PLC0415 - optional
        from pyarrow import parquet  # noqa: PLC0415 - optional
    except ImportError:
        raise InputError("Parquet files need pyarrow: pip install 'openseer[datasets]'") from None
    folder.read_run()
    if not folder.results_file.is_file():
        raise InputError(f"{folder.path}: no {RESULTS_FILE} here; of a serving job its trainer has the results")
    schema = _schema(pyarrow)
    draft = output.with_name(output.name + ".tmp")
    rows = 0
    try:
        with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
            for piece in _pieces(folder.results()):
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


def _pieces(results: Iterator[ResultLine]) -> Iterator[list[Mapping[str, Any]]]:
    piece: list[Mapping[str, Any]] = []
    tokens = 0
    for line in results:
        piece.append(_row(line))
        tokens += len(line.token_ids)
        if len(piece) >= PIECE_ROWS or tokens >= PIECE_TOKENS:
            yield piece
            piece, tokens = [], 0
    if piece:
        yield piece


def _row(line: ResultLine) -> Mapping[str, Any]:
    row = msgspec.to_builtins(line)
    row["metadata"] = None if line.metadata is None else json.dumps(line.metadata, ensure_ascii=False)
    if line.top_logprobs is not None:
        row["top_logprobs"] = [
            [{"token_id": token, "logprob": logprob} for token, logprob in likeliest] for likeliest in line.top_logprobs
        ]
    if line.routed_experts is not None:
        row["routed_experts"]["missing"] = [{"start": a, "end": b} for a, b in line.routed_experts.missing]
    return row
