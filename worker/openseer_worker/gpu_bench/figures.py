"""The file of figures: a line of JSON for each, as it comes. A run that was cut goes on from it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openseer_core.errors import InputError
from openseer_worker.gpu_bench.plan import Part

FILE = "figures.jsonl"
_MAY_DIFFER = frozenset({"kind", "date", "command"})
"""Of the header: these say nothing about what is measured."""


@dataclass(frozen=True)
class Figure:
    """What one part of the plan came to. `runner`: V1 or V2, vLLM's model runner; `tier`: how vLLM was told to compile.

    `tokens_per_step`: of one request, expected from the rates; `counted`: what the engine really yielded, which is the
    same up to chance where `accepted_by` is `dice`, and nothing to go by where it is `none` (a CPU, whose kernels lack
    it). `drafted`: drafts a request had in a step, as vLLM counted them.
    """

    way: str
    batch: int
    drafts: int
    context: int
    step_ms: list[float]
    tokens_per_step: float
    counted: float
    drafted: float
    accepted_by: str
    peak_bytes: int
    runner: str
    asynchronous: bool
    tier: str
    date: str

    @property
    def part(self) -> Part:
        return Part(self.way, self.batch, self.drafts)


@dataclass
class BenchFigures:
    """All that a file says."""

    header: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: dict[Part, Figure] = field(default_factory=dict[Part, Figure])
    texts: dict[str, Any] | None = None
    exactness: dict[str, Any] | None = None
    tier: str | None = None
    notes: dict[str, str] = field(default_factory=dict[str, str])
    """By way: why it has no figures, or not all."""


def write(folder: Path, line: Mapping[str, Any]) -> None:
    """Appends one line, which is on the disk when this returns; a line that was cut by a crash is closed first."""
    path = folder / FILE
    with path.open("ab+") as file:
        cut = b""
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut = b"" if file.read(1) == b"\n" else b"\n"
        file.write(cut + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def write_figure(folder: Path, figure: Figure) -> None:
    """The line of one figure."""
    write(folder, {"kind": "steps", **asdict(figure)})


def read(folder: Path) -> BenchFigures:
    """What the file says; empty where there is none. A line that was cut is passed over."""
    found = BenchFigures()
    path = folder / FILE
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            _take(found, json.loads(line))
        except ValueError:
            continue
    return found


def _take(found: BenchFigures, line: dict[str, Any]) -> None:
    kind = line.pop("kind", "")
    match kind:
        case "header":
            found.header = line
        case "steps":
            figure = Figure(**line)
            found.steps[figure.part] = figure
        case "texts":
            found.texts = line
        case "exactness":
            found.exactness = line
        case "tier":
            found.tier = line["tier"]
        case "note":
            found.notes[line["way"]] = line["text"]
        case _:
            raise ValueError(f"unknown kind of line {kind!r}")


def remove(folder: Path) -> None:
    """Throws the figures away."""
    (folder / FILE).unlink(missing_ok=True)


def check_header(found: BenchFigures, header: Mapping[str, Any], folder: Path) -> None:
    """Raises InputError where the folder has figures of something else: of two machines no table can be made."""
    if not found.header:
        return
    other = [
        f"{name.replace('_', ' ')} {found.header.get(name)!r}, now {header[name]!r}"
        for name in header
        if name not in _MAY_DIFFER and found.header.get(name) != header[name]
    ]
    if other:
        raise InputError(
            f"{folder} has figures of something else ({'; '.join(other)}): give another --output, or --fresh"
        )
