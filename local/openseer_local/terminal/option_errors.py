"""Messages about wrong values of options: value found, values allowed."""

import re
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

_CHOICE = re.compile(r"Value error, .* is not one of (.*)\.", re.DOTALL)
"""Typer's message about a value that is none of an option's choices."""


class CheckedCommands(TyperGroup):
    """A group of commands whose messages about options state the value found and the values allowed."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command. Raises BadParameter for a wrong value of an option."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = _found_and_allowed(error.__cause__)
            raise


def _found_and_allowed(error: ValidationError) -> str:
    from openseer_core.json_words import what_is_wrong  # noqa: PLC0415 - imports the manifest, which takes long
    from openseer_core.wording import shown  # noqa: PLC0415 - as above

    first = error.errors(include_url=False)[0]
    choices = _CHOICE.fullmatch(first["msg"])
    if choices is None:
        return what_is_wrong(first)
    return f"found {shown(first['input'])}, allowed: {choices[1].replace(chr(39), '')}"
