"""The fleet as JSON over HTTP: workers, autoscaling, and the lending of GPUs to the trainer."""

from typing import Literal

from pydantic import Field

from openseer_core.json_model import JsonModel
from openseer_core.weights.fleet_spec import MemoryPart
from openseer_core.wire.weights import Transaction

FleetWord = Literal["awake", "releasing", "released", "acquiring"]


class WorkerInfo(JsonModel):
    """A worker, by its last heartbeat. `figures`: its metrics (slots, kv_used, device, …).

    `error`: the reason why the worker cannot load the fleet's weights.
    """

    name: str
    state: str
    version: str = Field(description="Weights version that it has loaded.")
    seen_seconds_ago: float = Field(description="Age of its last heartbeat, in seconds.")
    inflight: int = Field(description="Number of leased requests.")
    figures: dict[str, float | int | str] = Field(description="Its metrics, by name.")
    error: str | None = Field(default=None, description="The reason why it cannot load the fleet's weights.")


class WorkerList(JsonModel):
    """The fleet's workers, sorted by name."""

    workers: list[WorkerInfo]


class Release(JsonModel):
    """Lends the GPUs to the trainer. sleep: engines free GPU memory, and their processes stay. stop: all workers stop.

    `keep_weights`: whether sleeping engines keep their weights in the machine's memory. Otherwise they discard them,
    and later load newly published weights, or, once all parts are awake again, the present ones.
    """

    mode: Literal["sleep", "stop"] = Field(
        default="sleep", description="sleep: engines free their memory, processes stay. stop: all workers stop."
    )
    keep_weights: bool = Field(default=True, description="Sleeping engines keep their weights in the machine's memory.")


class Acquire(JsonModel):
    """Takes the GPUs back. `parts`: the parts of sleeping engines to wake; unset: all, so that they sample again."""

    parts: list[MemoryPart] | None = Field(default=None, min_length=1)


class FleetState(JsonModel):
    """The state of the GPUs. `idle_gpu_seconds`, `busy_gpu_seconds`: GPU time of awake workers without and with
    requests.

    `since`: time of the latest change, in seconds of the store's clock. `awake`: the parts of engines that are to be
    awake (weights, kv_cache). `waiting_for`: workers that have not followed yet. `freed`: whether all sleeping engines
    returned GPU memory, which engines on a CPU do not; None while no engine sleeps or has reported it.
    """

    state: FleetWord
    mode: Literal["sleep", "stop"] | None = None
    since: float = Field(description="Time of the latest release or acquire, in seconds of the store's clock.")
    awake: list[str] = Field(default_factory=list[str])
    freed: bool | None = None
    waiting_for: list[str] = Field(default_factory=list[str], description="Workers that the change of state waits for.")
    idle_gpu_seconds: float = Field(
        default=0.0, description="GPU time in which awake workers had no request, in seconds summed over GPUs."
    )
    busy_gpu_seconds: float = Field(
        default=0.0, description="GPU time in which workers ran requests, in seconds summed over GPUs."
    )


class Autoscaling(JsonModel):
    """Input for KEDA and similar autoscalers. `backlog_tokens`: expected remaining tokens of unfinished requests."""

    queue_depth: int = Field(description="Number of waiting requests.")
    running: int = Field(description="Number of leased requests.")
    backlog_tokens: int = Field(description="Tokens still expected of the unfinished requests.")
    workers: int = Field(description="Number of workers.")
    desired_workers: int = Field(description="Number of workers that the backlog needs.")


class JobStatus(JsonModel):
    """An overview of the job. `workers_ready`: number of workers that work and have loaded the fleet's weights.
    `paused_since`: time since which new requests of the compatible routes wait, in seconds of the store's clock; None
    if they do not wait."""

    name: str
    namespace: str
    weights_version: str
    workers: int
    workers_ready: int
    open_batches: list[int]
    queue_depth: int = Field(description="Number of waiting requests.")
    running: int = Field(description="Number of leased requests.")
    tokens: int = Field(description="Tokens generated in the stored batches.")
    fleet: FleetState
    paused_since: float | None = None
    transaction: Transaction | None = None
