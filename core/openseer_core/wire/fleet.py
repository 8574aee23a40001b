"""What crosses HTTP about the fleet: weights transactions, workers, autoscaling, GPUs lent to the trainer."""

from typing import Literal

from pydantic import Field

from openseer_core.json_model import JsonModel
from openseer_core.weights.fleet_spec import MemoryPart
from openseer_core.wire.weights import Transaction

FleetWord = Literal["awake", "releasing", "released", "acquiring"]


class WorkerInfo(JsonModel):
    """A worker by its last heartbeat. `figures`: what it says of itself (slots, kv_used, device, …).

    `error`: what keeps it from loading the fleet's weights.
    """

    name: str
    state: str
    version: str
    seen_seconds_ago: float
    inflight: int
    figures: dict[str, float | int | str]
    error: str | None = None


class WorkerList(JsonModel):
    """The fleet, by name."""

    workers: list[WorkerInfo]


class Release(JsonModel):
    """Hands the GPUs to the trainer. sleep: engines free their memory, processes stay. stop: no worker is left.

    `keep_weights`: those that sleep keep their weights in the machine's memory; otherwise they throw them away, and
    load those that are published next, or the present ones when they are awake again.
    """

    mode: Literal["sleep", "stop"] = "sleep"
    keep_weights: bool = True


class Acquire(JsonModel):
    """Takes the GPUs back. `parts`: of engines that sleep, what is to be awake; unset: all, and they sample again."""

    parts: list[MemoryPart] | None = Field(default=None, min_length=1)


class FleetState(JsonModel):
    """Whether the GPUs are openseer's. `idle_gpu_seconds`: GPU time, summed, in which awake workers ran nothing.

    `awake`: what of the engines is to be awake (weights, kv_cache). `freed`: whether all that sleep gave GPU memory
    back, which those on a CPU do not; None while nobody sleeps, or has told it.
    """

    state: FleetWord
    mode: Literal["sleep", "stop"] | None = None
    since: float
    awake: list[str] = Field(default_factory=list[str])
    freed: bool | None = None
    waiting_for: list[str] = Field(default_factory=list[str])
    idle_gpu_seconds: float = 0.0
    busy_gpu_seconds: float = 0.0


class Autoscaling(JsonModel):
    """For KEDA and its kind. `backlog_tokens`: expected tokens of all that waits and runs, less those generated."""

    queue_depth: int
    running: int
    backlog_tokens: int
    workers: int
    desired_workers: int


class JobStatus(JsonModel):
    """The job at a glance. `workers_ready`: those that work and have loaded the fleet's weights. `paused_since`: from
    when on new requests of the compatible routes wait (seconds of the store's clock), None while they do not."""

    name: str
    namespace: str
    weights_version: str
    workers: int
    workers_ready: int
    open_batches: list[int]
    queue_depth: int
    running: int
    tokens: int
    fleet: FleetState
    paused_since: float | None = None
    transaction: Transaction | None = None
