"""The position of a reader of results, kept in a file, so that a restarted trainer continues from it."""

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
    """A reader's position: all up to `cursor` is taken; beyond it, groups whose end has a cursor up to that in `taken`.

    `complete`: the batch has no further results. `groups`: number of taken groups. `recent`: those taken in the last
    RECENT_SECONDS, with the time (seconds of the wall clock): a restarted store may lose them and return them again.
    """

    cursor: int = 0
    complete: bool = False
    taken: dict[str, int] = field(default_factory=dict[str, int])
    groups: int = 0
    recent: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Opened:
    """Distinguishes batches of the same number. `job`: NAMESPACE/NAME; `at`: when it was opened (seconds of the store's
    clock). Both are unset if an earlier API does not report them."""

    job: str = ""
    at: float = 0.0


class Checkpoint:
    """A file with one batch's position. It is replaced as a whole, so a kill leaves the old or the new one.

    A file of another batch of the job (an earlier iteration's) is overwritten. Raises InputError for a file that is no
    checkpoint, of another job, or of a batch that had this number before the store was emptied; OutputError if it
    cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def position(self, batch: int, opened: Opened = Opened()) -> Position:
        """The stored position in `batch`; the beginning if there is no file, or one of another batch."""
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
        """Replaces the file. `durable`: waits until it is on the disk, so that it survives a loss of power too."""
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
