"""What commands share: the two consoles, options, and how they end when responses have failed."""

import os
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from openseer_core.errors import ResponsesFailedError

MOST_COLUMNS = 10_000
"""Of a line that is written to no terminal."""


@dataclass(slots=True)
class Options:
    """What applies to every command."""

    debug: bool = False


def _console(*, stderr: bool = False) -> Console:
    """A console. What is no terminal has no width, unless COLUMNS says so: nothing is cut off in a pipe or a file."""
    console = Console(stderr=stderr)
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console.width = MOST_COLUMNS
    return console


OPTIONS = Options()
OUT = _console()
ERR = _console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text.")]
AllowFailures = Annotated[
    bool, typer.Option("--allow-failures", help="End with 0 also when responses have failed, instead of 9.")
]


def end_by_failures(text: str, *, allowed: bool) -> None:
    """`text`: which responses have failed, "" for none. Raises ResponsesFailedError where that is not allowed."""
    if text and not allowed:
        raise ResponsesFailedError(f"{text}\nwith --allow-failures the command ends with 0 all the same")
    if text:
        ERR.print(text, highlight=False, markup=False, soft_wrap=True)
