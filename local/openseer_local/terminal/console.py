"""What all commands share: the two consoles, `--json`, and options that stand before the command."""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console


@dataclass(slots=True)
class Options:
    """What applies to every command."""

    debug: bool = False


OPTIONS = Options()
OUT = Console()
ERR = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text.")]
