"""The parts that all commands share: two consoles, common options, and the exit code for failed responses."""

import os
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from openseer_core.errors import ResponsesFailedError

MOST_COLUMNS = 10_000
"""Width of output that is not written to a terminal, in columns; so wide that no line is cut off."""


@dataclass(slots=True)
class Options:
    """Options of all commands."""

    debug: bool = False


def _console(*, stderr: bool = False) -> Console:
    """A console. Output to a pipe or a file is not cut off, unless COLUMNS is set."""
    console = Console(stderr=stderr)
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console.width = MOST_COLUMNS
    return console


OPTIONS = Options()
OUT = _console()
ERR = _console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]
AllowFailures = Annotated[bool, typer.Option("--allow-failures", help="Exit with 0, not 9, if responses have failed.")]


def end_by_failures(text: str, *, allowed: bool) -> None:
    """Prints the failures. `text`: the failed responses, "" for none. Raises ResponsesFailedError if not allowed."""
    if text and not allowed:
        raise ResponsesFailedError(f"{text}\nwith --allow-failures the command exits with 0")
    if text:
        ERR.print(text, highlight=False, markup=False, soft_wrap=True)
