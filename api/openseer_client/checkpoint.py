"""Checkpoints: the position of a reader of results in a file, from which a restarted trainer continues."""

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openseer_core.errors import InputError, OutputError

RECENT_SECONDS = 60.0
"""Time that taken groups are remembered, in seconds: a store that restarts may have lost its last writes (one to
three seconds), and these groups are then generated again."""


_WAYS = ".\nName another file, or remove this one to read from the beginning."


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    batch: int
    job: str = ""
    opened_at: float = 0.0
    cursor: int = 0
    complete: bool = False
    taken: dict[str, int] = Field(default_factory=dict)
    groups: int = 0
    recent: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """A reader's position: every entry up to `cursor` was processed. `taken`: groups with later entries that were
    processed too, name → cursor of the group's end.

    `complete`: the batch has no further results. `groups`: number of processed groups. `recent`: groups processed in
    the last RECENT_SECONDS, name → time in seconds of the wall clock; a restarted store may return them again.
    """

    cursor: int = 0
    complete: bool = False
    taken: dict[str, int] = field(default_factory=dict[str, int])
    groups: int = 0
    recent: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Opened:
    """Distinguishes batches of the same number. `job`: NAMESPACE/NAME; `at`: time at which the batch was opened, in
    seconds of the store's clock. "" and 0.0 if the API is of an earlier version that does not report them."""

    job: str = ""
    at: float = 0.0


class Checkpoint:
    """A file with one batch's position. It is replaced as a whole, so a kill leaves the old or the new content.

    A file of another batch of the job (of an earlier iteration) is overwritten. Raises InputError for a file that is no
    checkpoint, belongs to another job, or to a batch that had this number before the store was emptied; OutputError if
    the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def position(self, batch: int, opened: Opened = Opened()) -> Position:
        """Returns the stored position in `batch`;
        the beginning if there is no file, or the file is of another batch."""
        try:
            found = _File.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return Position()
        except (OSError, ValidationError) as error:
            raise InputError(f"checkpoint {self.path}: {error}\nName another file, or remove this one.") from error
        if found.job and opened.job and found.job != opened.job:
            raise InputError(
                f"checkpoint {self.path}: of job {found.job}, and batch {batch} is one of {opened.job}{_WAYS}"
            )
        if found.batch != batch:
            return Position()
        if found.opened_at and opened.at and found.opened_at != opened.at:
            raise InputError(
                f"checkpoint {self.path}: of a batch {batch} that was opened at {_time(found.opened_at)}, and this one "
                f"was at {_time(opened.at)}: the store was emptied since{_WAYS}"
            )
        return Position(found.cursor, found.complete, found.taken, found.groups, found.recent)

    def save(self, batch: int, position: Position, opened: Opened = Opened(), *, durable: bool = False) -> None:
        """Replaces the file. `durable`: waits until it is on the disk, so that it survives a loss of power."""
        content = {
            "batch": batch,
            "job": opened.job,
            "opened_at": opened.at,
            "cursor": position.cursor,
            "complete": position.complete,
            "taken": position.taken,
            "groups": position.groups,
            "recent": position.recent,
        }
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump(content, file)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise OutputError(f"checkpoint {self.path}: {error.strerror or error}") from error


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
