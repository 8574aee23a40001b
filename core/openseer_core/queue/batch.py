"""A trainer's batch as the store keeps it, and the entries of its results stream."""

from dataclasses import dataclass, field

from openseer_core.ids import GroupId
from openseer_core.queue.messages import BatchProgress, Result


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch as it is opened. `spec`: JSON of wire.BatchSpec. `key`: idempotency key, "" for none.
    `carry`: it takes over the groups that wait in PARKED_BATCH.
    """

    version: str
    spec: str
    key: str = ""
    carry: bool = False


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """The state of a batch. Times are seconds of the store's clock; 0.0 means that the event has not happened.

    `ordinal`: its place in the order of opening, from 1; 0 for a batch job's batch, and for batches opened by an
    earlier release.

    `started_at`: first claim; `tail_at`: nine tenths of its requests had ended; `ended_at`: the latest end.
    `acknowledged`: cursor up to which the reader has stored all entries; `swept`: cursor up to which entries are
    deleted; `forgotten`: all data are deleted. `takes_parked`: the groups in PARKED_BATCH have not been moved here yet.
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
    """All requests of a group have ended. A group ends again after each further turn."""

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
"""An entry of a results stream."""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """`waiting`: queued requests by weights version; `running`: leased ones.
    `idle_seconds`, `busy_seconds`: sums over all workers that the job has had, stopped ones included.
    """

    waiting: dict[str, int] = field(default_factory=dict[str, int])
    running: int = 0
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0


TAIL = 10
"""The tail of a batch is the last tenth of its requests."""
