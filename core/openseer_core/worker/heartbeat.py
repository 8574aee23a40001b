"""What a worker says of itself once a second, and what the store answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import Field

from openseer_core.admission import ModelLimits, limits_of_all
from openseer_core.json_model import JsonModel
from openseer_core.worker.metrics import WorkerMetrics


class WorkerState(StrEnum):
    """What a worker is doing. A state of a newer version, unknown here, keeps its text."""

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
"""A worker whose last heartbeat is older is gone: it counts in no share of the load and is not waited for."""


class ReceptionReport(JsonModel):
    """How far a worker has followed the reception of this id: weights that a trainer sends to it, for all.

    `joined`: it is in the sender's group. `round`, `updates`, `finished`: as in the fleet spec's Reception. `path` and
    `digest`: of the folder of a finished round. `error`: why it has given up; only another reception helps.
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
    """What a worker passes on to others of versions that were published by URL.

    `address`: the URL below which it does; it ends in a secret, which nobody shows. `whole`, `partial`: by the
    transaction that a version came with: all its files are there, or they arrive now.
    """

    address: str = Field(repr=False)
    whole: tuple[int, ...] = ()
    partial: tuple[int, ...] = ()


class WeightsReport(JsonModel):
    """What a worker's heartbeat says of its weights.

    `version`: loaded now, "" while none is whole. `transaction`, `phase`: what it has confirmed last.
    `attempt`, `error`: of its latest failure, which stands until something succeeds. `mismatch`: the failure is that
    the canary's log-probabilities differ; `difference`: the greatest one. `seconds`: what each phase took. `digest`: of
    the files that it read last, "" for none; `loaded`: of those that `version` was loaded from, and `publisher`: the
    transaction that it came with. `adapters`: loaded ones, version → digest; `adapter_error`: what keeps one of the
    fleet's adapters from it. `asleep`: the engine samples nothing; its weights may be awake (`weights_awake`), and it
    takes others then. `freed`: whether falling asleep gave memory of a GPU back, which a CPU does not; None: not told.
    `rest_since`: of the fleet spec that it has followed in falling asleep; None from a worker of an earlier release.
    `reception`: of the worker that receives weights from their sender, for all. `passing`: None where it has no server.
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
    """What a worker reports of itself.

    `idle_seconds`, `busy_seconds`: how long this boot, awake, has held nothing and something; the store sums them up.
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
    """What one request may have, as the workers that claim report it, or without any those that were there last.

    `now`: seconds of the store's clock.
    """
    claiming = [worker for worker in workers if worker.works(now)]
    return limits_of_all(worker.heartbeat.metrics.limits for worker in claiming or workers)


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The answer of the store to a heartbeat.

    `revision`: of the fleet spec; news when it differs: a store that lost its last writes has an older one.
    `largest`: tokens that one request may have at the worker that takes the most, of those that claim; 0 without any.
    """

    drain: bool = False
    revision: int = 0
    largest: int = 0
