"""Shared parts of messages about a user's input: a name, a value, an unknown field."""

import difflib
import json
from collections.abc import Callable, Sequence

_SHOWN_LENGTH = 60


def one_line(name: str) -> str:
    """A name for a message of one line; a key of a map may contain any character."""
    return name if name.isprintable() else repr(name)


def shown(value: object) -> str:
    """A value as JSON, cut to _SHOWN_LENGTH characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


def unreadable(error: OSError, working_directory: Callable[[], object]) -> str:
    """The message that a file cannot be read; for a missing file of a relative path also the working directory, from
    `working_directory` (Path.cwd)."""
    reason = f"cannot be read: {error.strerror or error}"
    is_relative = isinstance(error, FileNotFoundError) and not str(error.filename or "/").startswith("/")
    return f"{reason} (working directory: {working_directory()})" if is_relative else reason


def unknown_field(name: str, known: Sequence[str], more: str = "") -> str:
    """The message about an unknown field: a similar known name, or all known names followed by `more`."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f'unknown field; did you mean "{near[0]}"?' if near else f"unknown field, known: {', '.join(known)}{more}"
