"""The heartbeat that a worker sends once a second, and the store's reply."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import Field

from openseer_core.admission import ModelLimits, limits_of_all
from openseer_core.json_model import JsonModel
from openseer_core.worker.metrics import WorkerMetrics


class WorkerState(StrEnum):
    """The state of a worker. A state of a newer release, unknown here, keeps its text."""

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
"""Age in seconds after which a heartbeat is stale: the worker has no share of the load, and no phase waits for it."""


class ReceptionReport(JsonModel):
    """The progress of a worker with the reception of this id: weights that a trainer sends to it, for all.

    `joined`: it is in the sender's group. `round`, `updates`, `finished`: as in the fleet spec's Reception. `path` and
    `digest`: of the folder of a finished round. `error`: the reason why it gave up; only another reception helps.
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
    """The versions, published by URL, that a worker passes on to others.

    `address`: the base URL; it ends in a secret, which no message shows. `whole`, `partial`: transactions of versions
    of which it has all files, or receives them now.
    """

    address: str = Field(repr=False)
    whole: tuple[int, ...] = ()
    partial: tuple[int, ...] = ()


class WeightsReport(JsonModel):
    """The weights in a worker's heartbeat.

    `version`: loaded now, "" while none is complete. `transaction`, `phase`: the last confirmation. `attempt`, `error`:
    of its latest failure, kept until something succeeds. `mismatch`: the failure is a difference of the canary's
    log-probabilities; `difference`: the greatest one. `seconds`: duration of each phase. `digest`: of the files that it
    read last, "" for none; `loaded`: of those that `version` was loaded from, and `publisher`: the transaction that
    published it. `adapters`: loaded ones, version → digest; `adapter_error`: the reason why it cannot load one of the
    fleet's adapters. `asleep`: the engine samples nothing; its weights may be awake (`weights_awake`), and then others
    can be loaded. `freed`: whether falling asleep returned GPU memory, which it does not on a CPU; None: unknown.
    `rest_since`: of the fleet spec that it followed when it fell asleep; None from a worker of an earlier release.
    `reception`: of the worker that receives weights for all. `passing`: None if it has no server.
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

    `idle_seconds`, `busy_seconds`: awake time of this boot without and with requests; the store sums them.
    """

    state: WorkerState
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    weights: WeightsReport | None = None
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The last heartbeat of a worker: when (store's clock), from which boot, and how many requests it holds."""

    name: str
    boot: str
    seen_at: float
    inflight: int
    heartbeat: Heartbeat

    def is_fresh(self, now: float) -> bool:
        """Whether it has reported within FRESH_SECONDS. `now`: seconds of the store's clock."""
        return now - self.seen_at <= FRESH_SECONDS

    def works(self, now: float) -> bool:
        """Whether it claims requests, by a fresh report."""
        return self.heartbeat.state in WORKING_STATES and self.is_fresh(now)


def reported_limits(workers: Sequence[WorkerStatus], now: float) -> ModelLimits:
    """The limits of one request, from the claiming workers, or if there are none from the last known ones.

    `now`: seconds of the store's clock.
    """
    claiming = [worker for worker in workers if worker.works(now)]
    return limits_of_all(worker.heartbeat.metrics.limits for worker in claiming or workers)


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The store's reply to a heartbeat.

    `revision`: of the fleet spec; any difference is news, because a store that lost its last writes has an older one.
    `largest`: the largest token limit of one request among the claiming workers; 0 without any.
    """

    drain: bool = False
    revision: int = 0
    largest: int = 0
