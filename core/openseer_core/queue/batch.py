"""A trainer's batch as the store keeps it, and the entries of its results stream."""

from dataclasses import dataclass, field

from openseer_core.ids import GroupId
from openseer_core.queue.messages import BatchProgress, Result


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """What is kept of a batch from the start. `spec`: JSON of wire.BatchSpec. `key`: idempotency key, "" for none.

    `carry`: it takes the groups that wait in PARKED_BATCH.
    """

    version: str
    spec: str
    key: str = ""
    carry: bool = False


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as it stands. Times are seconds of the store's clock, 0.0 where it has not happened.

    `ordinal`: its place in the order of opening, from 1; 0 for the driver's and for those of an earlier release.

    `started_at`: first claim; `tail_at`: nine tenths of its requests had ended; `ended_at`: the latest end.
    `acknowledged`: up to this cursor everything is safe; `swept`: up to this one the entries are gone; `forgotten`: all
    data are gone. `takes_parked`: the groups that wait in PARKED_BATCH have still to move here.
    """

    number: int
    version: str
    spec: str
    progress: BatchProgress
    opened_at: float
    started_at: float = 0.0
    tail_at: float = 0.0
    ended_at: float = 0.0
    acknowledged: int = 0
    forgotten: bool = False
    ordinal: int = 0
    swept: int = 0
    takes_parked: bool = False


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """All requests of a group have ended; it may come again, after a request went on."""

    cursor: int
    group: GroupId
    ended_at: float
    size: int
    ok: int
    aborted: int
    infra_failed: int
    carried_over: int

    @property
    def whole(self) -> bool:
        """Whether every response may be trained on."""
        return self.ok == self.size


Entry = Result | GroupEnd
"""What a results stream holds."""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """`waiting`: queued requests by weights version; `running`: leased ones.

    `idle_seconds`, `busy_seconds`: of all workers of the job so far, those that are gone included.
    """

    waiting: dict[str, int] = field(default_factory=dict[str, int])
    running: int = 0
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0


TAIL = 10
"""The tail of a batch is the last tenth of its requests."""
