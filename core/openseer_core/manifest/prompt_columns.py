"""Maps a row of any dataset to a prompt line, by the columns that the manifest names."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic.alias_generators import to_camel

from openseer_core.manifest.generation import PromptFields

_SINGLE = ("prompt", "messages", "prompt_token_ids", "id", "lengths")
_SHOWN = 12
"""Limit of a row's columns that a message lists."""


class ColumnError(ValueError):
    """A missing or unknown column. `is_whole`: whether it is a column of the row itself, not a key of a map in it."""

    def __init__(self, message: str, *, is_whole: bool) -> None:
        super().__init__(message)
        self.is_whole = is_whole


def columns_of(fields: PromptFields) -> tuple[str, ...]:
    """All columns that a mapping uses, as the manifest states them."""
    names = (cast("str | None", getattr(fields, name)) for name in _SINGLE)
    return tuple(name for name in names if name is not None) + fields.metadata


def mapped(row: Mapping[str, Any], fields: PromptFields) -> dict[str, Any]:
    """The row under the field names of a prompt line. Raises ColumnError."""
    line: dict[str, Any] = {}
    for name in _SINGLE:
        column = cast("str | None", getattr(fields, name))
        if column is not None:
            line[name] = _value(row, column, name)
    if type(line.get("id")) is int:
        line["id"] = str(line["id"])
    if fields.metadata:
        line["metadata"] = {column: _value(row, column, "metadata") for column in fields.metadata}
    return line


def _value(row: Mapping[str, Any], column: str, name: str) -> Any:
    if column in row:
        return row[column]
    place: Any = row
    for part in column.split("."):
        if not isinstance(place, Mapping) or part not in place:
            known = list(row)[:_SHOWN]
            more = f" and {len(row) - _SHOWN} more" if len(row) > _SHOWN else ""
            raise ColumnError(
                f"{column}: missing, which spec.prompts.fields.{to_camel(name)} names; found {', '.join(known)}{more}",
                is_whole=place is row,
            )
        place = cast("Mapping[str, Any]", place)[part]
    return place
