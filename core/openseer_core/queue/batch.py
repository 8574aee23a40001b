"""The record of a trainer's batch in the store, and the entries of its results stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openseer_core.ids import GroupId
from openseer_core.queue.messages import BatchProgress, Result


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """The arguments of opening a batch. `spec`: JSON of wire.BatchSpec. `key`: idempotency key, "" for none.
    `carry`: the batch takes the carried-over groups that wait in PARKED_BATCH (ids.py).
    """

    version: str
    spec: str
    key: str = ""
    carry: bool = False


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """The state of a batch. Times are seconds of the store's clock; 0.0 means that the event has not happened.

    `ordinal`: place in the order of opening, from 1; 0 for a batch job's batch, and for batches that an earlier release
    opened.

    `started_at`: time of the first claim; `tail_at`: time at which nine tenths of its requests had ended; `ended_at`:
    time of the latest end of a request. `acknowledged`: cursor up to which the reader has stored all entries; `swept`:
    cursor up to which entries are deleted; `forgotten`: the deletion of its data has begun; this record stays for a
    limited time. `takes_parked`: the groups in PARKED_BATCH have not been moved here yet.
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
    """The entry for a group of which all requests have ended. A group ends again after each further turn.

    `ok`, `aborted`, `infra_failed`, `carried_over`: number of its requests by status.
    """

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
        """Whether every response of the group may be used for training (status ok)."""
        return self.ok == self.size


Entry = Result | GroupEnd
"""An entry of a results stream."""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The load of a job. `waiting`: number of queued requests by weights version; `running`: number of leased requests.

    `idle_seconds`, `busy_seconds`: worker-seconds with an awake engine, without and with requests, summed over all
    workers that the job has had, stopped workers included.
    """

    waiting: dict[str, int] = field(default_factory=dict[str, int])
    running: int = 0
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0


TAIL = 10
"""The tail of a batch begins when (TAIL - 1) / TAIL of its requests have ended."""


def tail_start(ends: Sequence[float]) -> float:
    """The time at which the tail began, by the store's rule: at most a tenth of the requests was unfinished.

    `ends`: times at which the requests ended, ascending; 0 if there are none. With fewer than TAIL requests the tail
    begins at the last end.
    """
    return ends[-1 - len(ends) // TAIL] if ends else 0.0
