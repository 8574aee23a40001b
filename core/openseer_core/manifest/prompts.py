"""The lines of a prompt source: what each may hold, and what a person is told about the wrong ones."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from openseer_core.errors import PromptsError
from openseer_core.json_model import INT32_MAX
from openseer_core.manifest.rules import one_line

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FIELDS = ("id", "prompt", "messages", "prompt_token_ids", "metadata", "lengths")
_SOURCES = ("prompt", "messages", "prompt_token_ids")
_MESSAGE_FIELDS = ("role", "content")
_MOST_REPORTED = 20
_BOM = b"\xef\xbb\xbf"
# JSON can write half of a character (a lone surrogate), which no tokenizer takes.
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One prompt as its line states it; exactly one of prompt, messages and prompt_token_ids is set."""

    id: str
    line: int
    prompt: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    lengths: tuple[int, ...] | None = None


class _LineError(ValueError):
    """What is wrong with one line."""


def parse_prompts(lines: Iterable[bytes], source: str, *, group_size: int, need_lengths: bool) -> list[PromptLine]:
    """The prompts of a JSONL source, in order; blank lines are ignored. `source` names it in messages.

    Raises PromptsError with the first problems, a line each.
    """
    prompts: list[PromptLine] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(_BOM)
        if not line.strip():
            continue
        try:
            prompt = _prompt(_fields(line), number, group_size, need_lengths)
            first = seen.setdefault(prompt.id, number)
            if first != number:
                _wrong(f'id "{prompt.id}" is already that of line {first}')
            prompts.append(prompt)
        except _LineError as error:
            problems.append(f"{source} line {number}: {error}")
    if not prompts and not problems:
        problems.append(f"{source}: empty, needed: at least one prompt")
    if problems:
        raise PromptsError(source, _first(problems))
    return prompts


def _first(problems: Sequence[str]) -> list[str]:
    shown = list(problems[:_MOST_REPORTED])
    if len(problems) > _MOST_REPORTED:
        shown.append(f"… and {len(problems) - _MOST_REPORTED} more")
    return shown


def _wrong(message: str) -> NoReturn:
    raise _LineError(message)


def _no_constant(name: str) -> NoReturn:
    _wrong(f"not valid JSON ({name} is no JSON number)")


def _fields(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        if _HALF_CHARACTER.search(line):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _LineError:
        raise
    except (ValueError, RecursionError) as error:
        _wrong(_unreadable(error, line))
    if not isinstance(value, dict):
        _wrong(f"found {_kind(value)}, allowed: a map with one of {', '.join(_SOURCES)}")
    return cast("dict[str, Any]", value)


def _unreadable(error: ValueError | RecursionError, line: bytes) -> str:
    match error:
        case UnicodeDecodeError():
            return f"not UTF-8 (byte 0x{line[error.start]:02x} at offset {error.start} of the line)"
        case UnicodeEncodeError():
            return f"not valid text (half of a character, \\u{ord(error.object[error.start]):04x})"
        case json.JSONDecodeError():
            return f"not valid JSON ({error.msg} at column {error.colno})"
        case RecursionError():
            return "not usable JSON (nested too deeply)"
        case _:
            # The interpreter's own limit on the digits of a number.
            return f"not usable JSON ({error})"


def _prompt(fields: dict[str, Any], number: int, group_size: int, need_lengths: bool) -> PromptLine:
    _only_known(fields, _FIELDS)
    given = [name for name in _SOURCES if fields.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        _wrong(f"found {found}, allowed: exactly one of {', '.join(_SOURCES)}")
    return PromptLine(
        id=_id(fields.get("id"), number),
        line=number,
        prompt=_text(fields.get("prompt")),
        messages=_messages(fields.get("messages")),
        prompt_token_ids=_whole_numbers("prompt_token_ids", fields.get("prompt_token_ids"), least=0),
        metadata=_metadata(fields.get("metadata")),
        lengths=_lengths(fields.get("lengths"), group_size, need_lengths),
    )


def _only_known(fields: Mapping[str, Any], known: Sequence[str], where: str = "") -> None:
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f", known: {', '.join(known)}"
            _wrong(f"{where}{one_line(name)}: unknown field{hint}")


def _id(value: object, number: int) -> str:
    if value is None:
        return f"line-{number}"
    if not isinstance(value, str) or not _ID.fullmatch(value):
        _wrong(f"id: found {_shown(value)}, allowed: 1 to 128 of letters, digits, . _ : -")
    return value


def _text(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and value):
        _wrong(f"prompt: found {_shown(value)}, allowed: text, not empty")
    return value


def _messages(value: object) -> tuple[Mapping[str, str], ...] | None:
    if value is None:
        return None
    messages = _entries(value)
    if not messages:
        _wrong(f"messages: found {_shown(value)}, allowed: a list of at least one message")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _message(value: object, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        _wrong(f"{where}: found {_shown(value)}, allowed: a map with role and content")
    message = cast("dict[str, object]", value)
    _only_known(message, _MESSAGE_FIELDS, f"{where}.")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        _wrong(f"{where}.role: found {_shown(role)}, allowed: text, not empty")
    if not isinstance(content, str):
        _wrong(f"{where}.content: found {_shown(content)}, allowed: text")
    return {"role": role, "content": content}


def _metadata(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        _wrong(f"metadata: found {_shown(value)}, allowed: a map")
    return cast("Mapping[str, Any] | None", value)


def _lengths(value: object, group_size: int, need_lengths: bool) -> tuple[int, ...] | None:
    if value is None and need_lengths:
        _wrong(
            "lengths: missing; policy longest-first-oracle and forceLengths need the length of each response "
            f"({group_size}, as groupSize states)"
        )
    lengths = _whole_numbers("lengths", value, least=1)
    if lengths is not None and len(lengths) != group_size:
        _wrong(f"lengths: found {len(lengths)} entries, allowed: {group_size}, as groupSize states")
    return lengths


def _whole_numbers(name: str, value: object, *, least: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    entries = cast("list[int]", _entries(value))
    if not entries:
        _wrong(f"{name}: found {_shown(value)}, allowed: a list of whole numbers, not empty")
    # Lists may hold a hundred thousand ids: the usual case is checked without a Python loop.
    if set(map(type, entries)) == {int} and min(entries) >= least and max(entries) <= INT32_MAX:
        return tuple(entries)
    index, entry = next(_unfit(entries, least))
    _wrong(f"{name}[{index}]: found {_shown(entry)}, allowed: a whole number from {least} to {INT32_MAX}")


def _entries(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _unfit(entries: Sequence[object], least: int) -> Iterator[tuple[int, object]]:
    for index, entry in enumerate(entries):
        if type(entry) is not int or not least <= entry <= INT32_MAX:
            yield index, entry


def _kind(value: object) -> str:
    for kind, text in ((list, "a list"), (str, "text"), (bool, "true or false"), (type(None), "null")):
        if isinstance(value, kind):
            return text
    return "a number"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
