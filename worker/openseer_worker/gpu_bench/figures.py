"""The folder of a run and its file of figures, one line of JSON per figure, from which an interrupted run resumes."""

import errno
import fcntl
import json
import math
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from openseer_core.errors import InputError, OutputError
from openseer_worker.gpu_bench.plan import Part
from openseer_worker.gpu_bench.ways import TIERS

FILE = "figures.jsonl"
FORMAT = 2
"""Format number in the header; files of other formats are refused."""
LOCK = "bench.lock"
_NO_LOCKS = frozenset({errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS})
"""Errors of file systems without locks."""
_MAY_DIFFER = frozenset({"date", "command"})
"""Fields of the header that may differ between a run and its continuation."""
_FREE: Mapping[str, tuple[str, ...]] = {"exact_model": ("",)}
"""Values of header fields that a continuation may replace by others."""


@dataclass(frozen=True)
class Figure:
    """The result of one part of the plan. `runner`: V1 or V2, vLLM's model runner; `tier`: vLLM's compilation settings.

    `tokens_per_step`: of one request, expected by the acceptance rates. `counted`: the engine's actual number. It is
    equal up to chance if `accepted_by` is `dice`, and meaningless if that is `none` (on a CPU, whose kernels cannot
    accept at random). `drafted`: draft tokens of a request per step, as vLLM counted them.
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
    """The content of a file of figures."""

    header: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: dict[Part, Figure] = field(default_factory=dict[Part, Figure])
    texts: dict[str, Any] | None = None
    exactness: dict[str, Any] | None = None
    tier: str | None = None
    notes: dict[str, str] = field(default_factory=dict[str, str])
    """For each way the reason why figures are missing. A line with an empty note removes an earlier note."""


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Turns the system's errors within the context into OutputError, with the folder's name."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"--output: {folder} cannot be used: {error.strerror or error}; existing figures are kept"
        ) from error


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Creates the folder, and locks it within the context. Raises InputError if another run uses it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder} is in use by another run: wait for it, or give another --output") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


def write(folder: Path, line: Mapping[str, Any]) -> None:
    """Appends one line and syncs it to the disk. Before it, ends a line that a crash has cut. Raises OutputError if the
    disk is full or not writable."""
    path = folder / FILE
    with writing(folder), path.open("ab+") as file:
        cut = b""
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut = b"" if file.read(1) == b"\n" else b"\n"
        file.write(cut + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def write_figure(folder: Path, figure: Figure) -> None:
    """Appends the line of one figure."""
    write(folder, {"kind": "steps", **asdict(figure)})


def read(folder: Path) -> BenchFigures:
    """Reads the file of figures; returns empty figures without a file. Ignores lines that are cut or unknown."""
    found = BenchFigures()
    path = folder / FILE
    with writing(folder):
        lines = path.read_text("utf-8", errors="replace").split("\n") if path.exists() else []
    for line in lines:
        try:
            _take(found, _OBJECT.validate_python(json.loads(line), strict=True))
        except (ValueError, RecursionError):
            continue
    return found


def _take(found: BenchFigures, line: dict[str, Any]) -> None:
    """Adds one line to the figures. Raises ValueError for an invalid line."""
    kind = line.pop("kind", "")
    match kind:
        case "header":
            found.header = line
        case "steps":
            figure = _figure(line)
            found.steps[figure.part] = figure
        case "texts":
            found.texts = line | _Texts.model_validate(line, strict=True).model_dump()
        case "exactness":
            found.exactness = line | _Exactness.model_validate(line, strict=True).model_dump()
        case "tier":
            found.tier = _tier(line.get("tier"))
        case "note":
            _note(found, _Note.model_validate(line, strict=True))
        case _:
            raise ValueError(f"unknown kind of line {kind!r}")


class _Texts(BaseModel):
    greedy: list[list[int]]
    samples: dict[str, int]


class _Exactness(BaseModel):
    greedy_same: int
    greedy_of: int
    greedy_tokens: int
    greedy_tokens_per_step: float
    chi_square: float
    degrees: int
    deviations: float
    samples: int


class _Note(BaseModel):
    way: str
    text: str


_OBJECT = TypeAdapter(dict[str, Any])
_FIGURE = TypeAdapter(Figure)
_NAMES = {each.name for each in fields(Figure)}


def _note(found: BenchFigures, note: _Note) -> None:
    found.notes.pop(note.way, None)
    if note.text:
        found.notes[note.way] = note.text


def _tier(tier: object) -> str:
    """Checks the name of a tier. Raises ValueError."""
    if tier not in [*TIERS]:
        raise ValueError("a way to compile that is not known")
    return str(tier)


def _figure(line: dict[str, Any]) -> Figure:
    """Parses a line with a figure. Raises ValueError."""
    if set(line) != _NAMES:
        raise ValueError("fields of another format")
    figure = _FIGURE.validate_python(line)
    if not figure.step_ms or not all(0 < time < math.inf for time in figure.step_ms) or figure.batch < 1:
        raise ValueError("no steps")
    return figure


def remove(folder: Path) -> None:
    """Deletes the figures."""
    with writing(folder):
        (folder / FILE).unlink(missing_ok=True)


def check_header(found: BenchFigures, header: Mapping[str, Any], folder: Path) -> None:
    """Raises InputError if the folder has figures of another machine or model: a table cannot mix them.

    A run without a small real model may be continued with such a model.
    """
    old = found.header
    if not old and not (found.steps or found.texts or found.exactness or found.tier):
        return
    if old.get("format") != FORMAT:
        raise InputError(
            f"{folder} has figures in another format, of another version: give another --output, or --fresh"
        )
    other = [
        f"{name.replace('_', ' ')} {old.get(name)!r}, now {header[name]!r}"
        for name in header
        if name not in old or (name not in _MAY_DIFFER and old[name] not in (header[name], *_FREE.get(name, ())))
    ]
    if other:
        raise InputError(
            f"{folder} has figures of another configuration ({'; '.join(other)}): give another --output, or --fresh"
        )
