"""Reads and checks the rows of a prompt source, with error messages for each row."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from openseer_core.chat import ChatError, read_messages
from openseer_core.errors import JsonError
from openseer_core.json_model import INT32_MAX
from openseer_core.manifest.job import PromptFields, Spec
from openseer_core.manifest.problems import Problems
from openseer_core.manifest.prompt_columns import ColumnError, mapped
from openseer_core.strict_json import parse
from openseer_core.wording import one_line, shown, unknown_field

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FIELDS = ("id", "prompt", "messages", "prompt_token_ids", "metadata", "lengths")
_SOURCES = ("prompt", "messages", "prompt_token_ids")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One row of a prompt source, as it was read.

    `number`: of the row, from 1, counted over the whole source. `place`: file name and row number, for messages.
    `content`: a line, or the values of a table's row by column.
    """

    number: int
    place: str
    content: bytes | Mapping[str, Any]

    @property
    def is_blank(self) -> bool:
        """Whether it is an empty line, which is skipped."""
        return isinstance(self.content, bytes) and not self.content.strip()

    @property
    def is_of_table(self) -> bool:
        """Whether it is a row of a table, with the same columns as all rows of its file."""
        return not isinstance(self.content, bytes)

    def taken(self, name: str, first: int, field: str = "id") -> str:
        """The message that row number `first` has the same id. `field`: the one that gives ids; unset: by number."""
        unit = "row" if self.is_of_table else "line"
        of_all = "" if self.place.endswith(f" {self.number}") else " (counted over all files)"
        remedy = f"give each {unit} its own id, or leave {field} out: then {unit}s are numbered"
        return f'id "{name}" is already that of {unit} {first}{of_all}; {remedy}'

    def values(self, fields: PromptFields | None = None) -> Mapping[str, Any]:
        """The row's values by name; with `fields` only the mapped ones. Raises JsonError, ColumnError."""
        values = _fields(self.content) if isinstance(self.content, bytes) else self.content
        if fields is not None:
            values = mapped(values, fields)
        if self.is_of_table:
            _require_json(values)
        return values


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One prompt of a source; exactly one of prompt, messages and prompt_token_ids is set."""

    id: str
    line: int
    prompt: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    lengths: tuple[int, ...] | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class PromptRules:
    """The job's requirements for its prompts. `need_lengths`: whether each row must state lengths; `longest_length`:
    limit of a forced length, in tokens, None for no limit; `fields`: the columns from which prompts are made, None if
    rows have the names of a prompt line.
    """

    group_size: int
    need_lengths: bool = False
    longest_length: int | None = None
    fields: PromptFields | None = None

    @staticmethod
    def of(spec: Spec) -> "PromptRules":
        """The requirements of a manifest."""
        longest = spec.sampling.max_tokens if spec.sampling.force_lengths else None
        fields = spec.prompts.fields if spec.prompts is not None else None
        return PromptRules(spec.group_size, spec.needs_lengths, longest, fields)


class _LineError(ValueError):
    """An error in one line."""


def parse_prompts(rows: Iterable[PromptRow], source: str, rules: PromptRules) -> Iterator[PromptLine]:
    """Yields the prompts of a source in order; blank lines are ignored. `source`: its name, for messages.

    Memory holds only the ids of earlier prompts. Raises PromptsError after the last row if there was any error.
    """
    problems = Problems(source)
    seen: dict[str, int] = {}
    is_empty = True
    for row in rows:
        if row.is_blank:
            continue
        is_empty = False
        try:
            prompt = _prompt(row.values(rules.fields), row, rules)
            first = seen.setdefault(prompt.id, row.number)
            if first != row.number:
                _wrong(row.taken(prompt.id, first, _place_of_ids(rules.fields)))
        except (_LineError, ColumnError, JsonError) as error:
            problems.add(str(error), row.place)
            if isinstance(error, ColumnError) and error.is_whole and row.is_of_table:
                break  # all rows of a table have the same columns
        else:
            yield prompt
    if is_empty:
        problems.add(f"{source}: empty, needed: at least one prompt")
    problems.require_none()


def _place_of_ids(fields: PromptFields | None) -> str:
    return "id" if fields is None or fields.id is None else "spec.prompts.fields.id"


def _wrong(message: str) -> NoReturn:
    raise _LineError(message)


def _require_json(values: Mapping[str, Any]) -> None:
    """Raises JsonError for values of a table's row that JSON cannot represent."""
    try:
        json.dumps(values, allow_nan=False)
    except TypeError as error:
        raise JsonError(f"found a value that JSON cannot hold ({error})") from None
    except ValueError:
        parse(json.dumps(values))  # its error names the place


def _fields(line: bytes) -> dict[str, Any]:
    value = parse(line)
    if not isinstance(value, dict):
        raise JsonError(f"found {_kind(value)}, allowed: a map with one of {', '.join(_SOURCES)}")
    return cast("dict[str, Any]", value)


def _prompt(fields: Mapping[str, Any], row: PromptRow, rules: PromptRules) -> PromptLine:
    _only_known(fields)
    given = [name for name in _SOURCES if fields.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or ("null" if any(name in fields for name in _SOURCES) else "none")
        _wrong(f"found {found}, allowed: exactly one of {', '.join(_SOURCES)}")
    return PromptLine(
        id=_id(fields.get("id"), row.number),
        line=row.number,
        prompt=_text(fields.get("prompt")),
        messages=_messages(fields.get("messages")),
        prompt_token_ids=_whole_numbers("prompt_token_ids", fields.get("prompt_token_ids"), least=0),
        metadata=_metadata(fields.get("metadata")),
        lengths=_lengths(fields.get("lengths"), rules),
        place=row.place,
    )


def _only_known(fields: Mapping[str, Any]) -> None:
    name = next((name for name in fields if name not in _FIELDS), None)
    if name is not None:
        problem = unknown_field(name, _FIELDS, more="; columns of other names are mapped by spec.prompts.fields")
        raise ColumnError(f"{one_line(name)}: {problem}", is_whole=True)


def _id(value: object, number: int) -> str:
    if value is None:
        return f"line-{number}"
    if not isinstance(value, str) or not _ID.fullmatch(value):
        _wrong(f"id: found {shown(value)}, allowed: 1 to 128 of letters, digits, . _ : -")
    return value


def _text(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and value):
        hint = "; chat messages belong into messages (spec.prompts.fields.messages)" if isinstance(value, list) else ""
        _wrong(f"prompt: found {shown(cast('object', value))}, allowed: text, not empty{hint}")
    return value


def _messages(value: object) -> tuple[Mapping[str, str], ...] | None:
    try:
        return None if value is None else tuple(read_messages(value))
    except ChatError as error:
        raise _LineError(str(error)) from None


def _metadata(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        _wrong(f"metadata: found {shown(value)}, allowed: a map")
    return cast("Mapping[str, Any] | None", value)


def _lengths(value: object, rules: PromptRules) -> tuple[int, ...] | None:
    if value is None and rules.need_lengths:
        _wrong(
            "lengths: missing; policy longest-first-oracle and forceLengths need the length of each response "
            f"({rules.group_size}, as groupSize states)"
        )
    lengths = _whole_numbers("lengths", value, least=1)
    if lengths is None:
        return None
    if len(lengths) != rules.group_size:
        _wrong(f"lengths: found {len(lengths)} of them, allowed: {rules.group_size}, as groupSize states")
    if rules.longest_length is not None and max(lengths) > rules.longest_length:
        _wrong(f"lengths: found {max(lengths)}, allowed: at most spec.sampling.maxTokens, {rules.longest_length}")
    return lengths


def _whole_numbers(name: str, value: object, *, least: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    entries = cast("list[int]", _entries(value))
    if not entries:
        _wrong(f"{name}: found {shown(value)}, allowed: a list of whole numbers, not empty")
    # A list may contain 100,000 ids, so a list without errors is checked without a Python loop.
    if set(map(type, entries)) == {int} and min(entries) >= least and max(entries) <= INT32_MAX:
        return tuple(entries)
    index, entry = next(_unfit(entries, least))
    _wrong(f"{name}[{index}]: found {shown(entry)}, allowed: a whole number from {least} to {INT32_MAX}")


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
