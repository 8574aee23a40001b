"""Writes a run's events as a file that Perfetto opens, event by event: a large run's are never in memory at once."""

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
"""Of compression: higher ones take three times as long for a tenth less."""


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """What a trace file holds."""

    workers: int
    leases: int
    moves: int


def write_trace(folder: RunFolder, output: Path) -> TraceCounts:
    """Writes it, compressed where the name ends in `.gz`; an older file is replaced once the new one is whole.

    Times are as they passed: unix seconds of the driver, where samples tell them. Raises InputError, OutputError.
    """
    trace = in_real_time(read_trace(folder))
    if not trace.facts:
        raise InputError(
            f"{folder.path}: no result here: there is nothing to show; of a serving job its trainer has them"
        )
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
    """One JSON object, an event a line."""
    encode = msgspec.json.Encoder().encode
    yield b'{"displayTimeUnit":"ms","otherData":' + encode({"run": name, "begin, unix seconds": events.begin})
    yield b',"traceEvents":[\n'
    first: Iterator[TraceEvent] = events.all()
    yield from chain((encode(next(first)),), (b",\n" + encode(event) for event in first))
    yield b"\n]}\n"
