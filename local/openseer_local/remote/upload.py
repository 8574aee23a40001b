"""Reads a file of groups for `openseer submit`: one group per row, in any format of a job's prompts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from openseer_core.admission import ModelLimits, misfit
from openseer_core.errors import JsonError
from openseer_core.json_words import what_is_wrong, with_model
from openseer_core.manifest.generation import Sampling
from openseer_core.manifest.problems import Problems
from openseer_core.manifest.prompts import PromptRow
from openseer_core.wire.batches import Group
from openseer_core.wording import unknown_field
from openseer_driver.prompts.source import PromptSource

_STUDY_FIELDS = frozenset({"lengths"})
"""Fields of a batch job's prompts for studies, which the API does not have."""
_NOT_MAPPED = "; columns are mapped only by a job's manifest"


class GroupsFile:
    """Reads the groups of a file or a folder as a stream, as often as it is iterated.

    `count`: number of groups; `lengths`: number of rows with lengths, which a serving job ignores. Columns must have
    the names of a Group's fields, since there is no manifest that maps others.
    """

    def __init__(self, path: Path, n: int | None) -> None:
        """Reads and checks the whole file before anything is sent. `n`: responses of a group without `n`.

        Raises PromptsError, which lists the problems.
        """
        self._source = PromptSource(str(path), path)
        self._n = n
        self._sha256 = self._source.digest()
        self.count = self.lengths = 0
        for row, _ in self._placed():
            self.count += 1
            self.lengths += row.values().get("lengths") is not None

    def __iter__(self) -> Iterator[Group]:
        """Yields the groups in order. Raises PromptsError at the end if a row is wrong or the file has changed."""
        return (group for _, group in self._placed())

    def require_fit(self, workers: Sequence[ModelLimits]) -> None:
        """Raises PromptsError, which lists the prompts of token ids that none of these workers can run.

        Prompts of text are not checked: only the API has the tokenizer.
        """
        problems = Problems(self._source.name)
        for row, group in self._placed() if workers else ():
            sampling, prompt = group.sampling or Sampling(), group.prompt_token_ids
            whys = [misfit(prompt, sampling, limits) for limits in workers] if prompt is not None else [None]
            if all(whys):
                problems.add(str(whys[0]), row.place)
        problems.require_none()

    def place_of(self, name: str) -> str | None:
        """Returns file and row of the group with this name; None if there is none."""
        return next((row.place for row, group in self._placed() if group.id == name), None)

    def _placed(self) -> Iterator[tuple[PromptRow, Group]]:
        with self._source.unchanged(self._sha256):
            yield from self._groups()

    def _groups(self) -> Iterator[tuple[PromptRow, Group]]:
        problems = Problems(self._source.name)
        seen: dict[str, int] = {}
        for row in self._source.rows():
            if row.is_blank:
                continue
            try:
                group = _group(row, self._n)
            except (JsonError, ValueError) as error:
                problems.add(str(error), row.place)
                continue
            first = seen.setdefault(group.id, row.number)
            if first == row.number:
                yield row, group
            else:
                problems.add(row.taken(group.id, first), row.place)
        problems.require_none()
        if not seen:
            problems.add(f"{self._source.name}: empty, needed: at least one group")
        problems.require_none()


def _group(row: PromptRow, n: int | None) -> Group:
    """Makes the group of a row. A prompt line of a batch job is a valid row.

    Raises JsonError, ValueError.
    """
    # A table has all columns in each row: null means that the field is not given.
    fields = {name: value for name, value in row.values().items() if value is not None and name not in _STUDY_FIELDS}
    fields.setdefault("id", f"line-{row.number}")
    if n is not None:
        fields.setdefault("n", n)
    try:
        return Group.model_validate(fields)
    except ValidationError as error:
        first = with_model(error.errors(), Group)[0]
        where = ".".join(map(str, first["loc"]))
        is_column = first["type"] == "extra_forbidden" and len(first["loc"]) == 1
        problem = unknown_field(where, [*Group.model_fields], _NOT_MAPPED) if is_column else what_is_wrong(first)
        raise ValueError(f"{where}: {problem}" if where else problem) from None
