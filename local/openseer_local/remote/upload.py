"""A file of groups, one JSON object a line, as `openseer submit` sends it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from openseer_core.errors import InputError, PromptsError
from openseer_core.wire.batches import Group

MOST_REPORTED = 20
_BOM = b"\xef\xbb\xbf"


def check_groups(path: Path, n: int | None) -> int:
    """How many groups the file holds; read as a whole before anything is sent. Raises PromptsError, InputError."""
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            group = _group(line, number, n)
        except ValueError as error:
            problems.append(f"{path} line {number}: {error}")
            continue
        first = seen.setdefault(group.id, number)
        if first != number:
            problems.append(f'{path} line {number}: id "{group.id}" is already that of line {first}')
    if not seen and not problems:
        problems.append(f"{path}: empty, needed: at least one group")
    if problems:
        more = [f"… and {len(problems) - MOST_REPORTED} more"] if len(problems) > MOST_REPORTED else []
        raise PromptsError(str(path), problems[:MOST_REPORTED] + more)
    return len(seen)


def read_groups(path: Path, n: int | None) -> Iterator[Group]:
    """The groups of a file that was checked, one after the other. `n`: responses of a group that states none."""
    for number, line in _lines(path):
        yield _group(line, number, n)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(_BOM) if number == 1 else line
                if text.strip():
                    yield number, text
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _group(line: bytes, number: int, n: int | None) -> Group:
    """A line is a group as the API takes it; the prompt files of batch jobs are such lines too. Raises ValueError."""
    fields = _fields(line)
    fields.pop("lengths", None)  # of batch jobs for study: a trainer does not know them
    if fields.get("id") is None:
        fields["id"] = f"line-{number}"
    if fields.get("n") is None and n is not None:
        fields["n"] = n
    try:
        return Group.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _fields(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start} of the line") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("not usable JSON (nested too deeply)") from None
    if not isinstance(value, dict):
        raise ValueError("found no map, needed: one with prompt, messages or prompt_token_ids")
    return cast("dict[str, Any]", value)
