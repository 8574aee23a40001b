"""The heartbeat that a worker sends once a second, and the store's reply."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import Field

from openseer_core.admission import ModelLimits, limits_of_all
from openseer_core.json_model import JsonModel
from openseer_core.worker.metrics import WorkerMetrics


class WorkerState(StrEnum):
    """The state of a worker. An unknown state, of a newer release, is kept as text."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    SICK = "sick"
    FOLLOWING = "following"
    """A rank of a gang other than 0: its leader sends the heartbeats."""

    @classmethod
    def _missing_(cls, value: object) -> "WorkerState | None":
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


WORKING_STATES = frozenset({WorkerState.IDLE, WorkerState.BUSY})
"""States in which a worker claims requests, and takes part in a weights transaction."""


FRESH_SECONDS = 10.0
"""Age in seconds after which a heartbeat is stale: then the worker gets no share of the load, and no phase of a weights
transaction waits for it."""


class ReceptionReport(JsonModel):
    """A worker's progress in a reception of weights that a trainer sends to it for the whole fleet.

    `id`: of the reception; `joined`: whether the worker is in the sender's process group. `round`, `updates`,
    `finished`: as in the fleet spec's Reception. `path` and `digest`: of the folder of a finished round. `error`: the
    reason why the worker gave up; it receives again only in another reception.
    """

    id: int
    joined: bool = False
    round: int = 0
    updates: int = 0
    finished: bool = False
    path: str = ""
    digest: str = ""
    error: str = ""


class PassingReport(JsonModel):
    """The versions, published by URL, whose files a worker sends to other workers.

    `address`: the base URL; it ends in a secret, which no message shows. Versions are named by the transaction that
    published them: of `whole` ones the worker has all files, `partial` ones it receives now.
    """

    address: str = Field(repr=False)
    whole: tuple[int, ...] = ()
    partial: tuple[int, ...] = ()


class WeightsReport(JsonModel):
    """The weights in a worker's heartbeat.

    `version`: the loaded version, "" while none is complete; `loaded`: digest of the files from which it was loaded;
    `publisher`: the transaction that published it. `transaction`, `phase`: the last confirmation. `attempt`, `error`:
    the latest failure, kept until a later success. `mismatch`: whether the failure is a difference of the canary's
    log-probabilities; `difference`: the greatest difference. `seconds`: duration of each phase. `digest`: of the files
    that the worker read last, "" for none. `adapters`: loaded ones, version → digest; `adapter_error`: the reason why
    it cannot load one of the fleet's adapters. `asleep`: whether the engine samples nothing; if its weights are awake
    (`weights_awake`), it can load others. `freed`: whether the last sleep returned GPU memory, which it does not on a
    CPU; None: unknown. `rest_since`: of the fleet spec that the worker followed when its engine fell asleep; None from
    an earlier release. `reception`: None unless the worker receives weights for all. `passing`: None if it has no
    server for files.
    """

    version: str = ""
    transaction: int = 0
    attempt: int = 0
    phase: str = ""
    error: str = ""
    mismatch: bool = False
    difference: float | None = None
    asleep: bool = False
    weights_awake: bool = False
    freed: bool | None = None
    rest_since: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    digest: str = ""
    loaded: str = ""
    publisher: int = 0
    adapters: dict[str, str] = Field(default_factory=dict)
    adapter_error: str = ""
    reception: ReceptionReport | None = None
    passing: PassingReport | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's report about itself.

    `idle_seconds`, `busy_seconds`: awake time of this boot without and with requests; the store adds up all boots.
    """

    state: WorkerState
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    weights: WeightsReport | None = None
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The last heartbeat of a worker. `seen_at`: its time, in seconds of the store's clock; `inflight`: number of the
    requests that the worker holds."""

    name: str
    boot: str
    seen_at: float
    inflight: int
    heartbeat: Heartbeat

    def is_fresh(self, now: float) -> bool:
        """Whether it has reported within FRESH_SECONDS. `now`: seconds of the store's clock."""
        return now - self.seen_at <= FRESH_SECONDS

    def works(self, now: float) -> bool:
        """Whether it claims requests, by a fresh heartbeat. `now`: seconds of the store's clock."""
        return self.heartbeat.state in WORKING_STATES and self.is_fresh(now)


def reported_limits(workers: Sequence[WorkerStatus], now: float) -> ModelLimits:
    """The limits of one request, from the workers that claim; if none does, from the last heartbeats of all.

    `now`: seconds of the store's clock.
    """
    claiming = [worker for worker in workers if worker.works(now)]
    return limits_of_all(worker.heartbeat.metrics.limits for worker in claiming or workers)


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The store's reply to a heartbeat.

    `drain`: whether the worker must drain. `revision`: of the fleet spec; a worker reads the fleet spec if the revision
    differs from the known one, also if it is lower, because a store may have lost its last writes. `largest`: the
    largest token limit of one request among the workers that claim; 0 without any.
    """

    drain: bool = False
    revision: int = 0
    largest: int = 0
