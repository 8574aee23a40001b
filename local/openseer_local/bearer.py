"""Reads bearer tokens from a command line: as text or from a file."""

import re
from pathlib import Path

from openseer_core.errors import InputError
from openseer_core.wording import unreadable

_TOKEN = re.compile(r"[\x21-\x7e]+")


def given_token(token: str | None, token_file: Path | None) -> str:
    """Returns the token that the command line gives as text or as a file, "" without one. Raises InputError."""
    if token is not None and token_file is not None:
        raise InputError("--token and --token-file: give only one of them")
    if token_file is not None:
        return read_token(token_file, "--token-file")
    return check_token(token, "--token") if token is not None else ""


def read_token(path: Path, option: str) -> str:
    """Reads a token from a file. `option`: the option's name in error messages. Raises InputError."""
    try:
        return check_token(path.read_text("utf-8"), option)
    except (OSError, UnicodeDecodeError) as error:
        reason = "cannot be read: not UTF-8; save it as UTF-8"
        if isinstance(error, OSError):
            reason = unreadable(error, Path.cwd)
        raise InputError(f"{option}: {path} {reason}") from error


def check_token(text: str, option: str) -> str:
    """Returns the token without surrounding white space. Raises InputError if an HTTP header cannot contain it."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise InputError(f"{option}: a token has one or more ASCII characters and no spaces")
    return token
