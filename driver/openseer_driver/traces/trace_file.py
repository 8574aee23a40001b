"""Writes a run's events to a file for Perfetto as a stream, so that not all events are in memory at once."""

import gzip
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_driver.explain.real_time import in_real_time
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import RunFolder
from openseer_driver.traces.events import RunEvents, TraceEvent

LEVEL = 6
"""Compression level of gzip: higher levels take three times as long and make files smaller by a tenth."""


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """Numbers of entries of a trace file."""

    workers: int
    leases: int
    moves: int


def write_trace(folder: RunFolder, output: Path) -> TraceCounts:
    """Writes the trace file, compressed if the name ends in `.gz`; replaces an older file atomically.

    Times are unix seconds of the driver, if the samples have them. Raises InputError, OutputError.
    """
    trace = in_real_time(read_trace(folder))
    if not trace.facts:
        raise InputError(f"{folder.path}: no results in this folder; the results of a serving job are with its trainer")
    events = RunEvents(trace)
    draft = output.with_name(output.name + ".tmp")
    try:
        with cast(BinaryIO, gzip.open(draft, "wb", LEVEL) if output.suffix == ".gz" else draft.open("wb")) as file:
            file.writelines(_document(events, trace.record.name))
        draft.replace(output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return TraceCounts(len(events.workers), events.leases, sum(1 for _ in events.moves()))


def _document(events: RunEvents, name: str) -> Iterator[bytes]:
    """One JSON object with an event per line."""
    encode = msgspec.json.Encoder().encode
    yield b'{"displayTimeUnit":"ms","otherData":' + encode({"run": name, "begin, unix seconds": events.begin})
    yield b',"traceEvents":[\n'
    first: Iterator[TraceEvent] = events.all()
    yield from chain((encode(next(first)),), (b",\n" + encode(event) for event in first))
    yield b"\n]}\n"
