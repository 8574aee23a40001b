"""What crosses HTTP about the fleet: weights transactions, workers, autoscaling, GPUs lent to the trainer."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from openseer_core.wire import TokenId, VersionName, Wire

Mode = Literal["drain", "keep", "abort"]
Phase = Literal["prefetch", "quiesce", "load", "commit", "rollback", "done", "failed"]
FleetWord = Literal["awake", "releasing", "released", "acquiring"]
OnFailure = Literal["abort", "replace"]


class Source(Wire):
    """Where new weights are; exactly one.

    path: a folder of safetensors that every worker sees. url: a folder over HTTP(S), fetched by each worker: it holds
    model.safetensors, or model.safetensors.index.json and the files it names. transfer: the engine's own transfer
    backend, on GPUs; its fields are the engine's.
    """

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://", max_length=4096)] | None = None
    transfer: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Source":
        if sum(value is not None for value in (self.path, self.url, self.transfer)) != 1:
            raise ValueError("exactly one of path, url and transfer is needed")
        return self


class Canary(Wire):
    """What every worker scores with the new weights, and what the publisher's own forward pass says of it.

    `logprobs`: of token_ids[1:], given what comes before each. `tolerance`: greatest allowed difference, of those below
    -1 in proportion to them; unset: by the engine's number format (CANARY_TOLERANCE).
    """

    token_ids: list[TokenId] = Field(min_length=2, max_length=4096)
    logprobs: list[float]
    tolerance: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _lengths(self) -> "Canary":
        if len(self.logprobs) != len(self.token_ids) - 1:
            raise ValueError(f"logprobs: found {len(self.logprobs)}, needed: one for each token after the first")
        return self


class Deadlines(Wire):
    """Longest time of each phase, in seconds."""

    prefetch: float = Field(default=600.0, gt=0, le=86400)
    quiesce: float = Field(default=3600.0, gt=0, le=86400)
    load: float = Field(default=600.0, gt=0, le=86400)


class Publish(Wire):
    """New weights for the whole fleet, in one transaction.

    `mode`: drain waits for open batches of the old version; keep hands running responses to the new version (their
    results tell the spans); abort ends them, partial responses reported. `on_failure`: what happens when a worker has
    not confirmed in time after `retries` more tries: abort goes back to the old version everywhere; replace drains
    that worker and goes on without it (its successor starts with the new version).
    """

    version: VersionName
    source: Source
    mode: Mode = "drain"
    on_failure: OnFailure = "abort"
    retries: int = Field(default=1, ge=0, le=10)
    prefetch: bool = Field(default=True, description="Fetch and read the files while the old version still runs.")
    max_staleness: int | None = Field(default=None, ge=0, description="With keep: older responses are aborted.")
    canary: Canary | None = None
    deadlines: Deadlines = Deadlines()


class WorkerWeights(Wire):
    """One worker in a transaction. `phase`: the last one it has confirmed; `seconds`: what each phase took it."""

    worker: str
    version: str
    phase: str
    attempt: int = 0
    error: str | None = None
    canary_difference: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)


class Transaction(Wire):
    """A weights transaction as it stands. `waiting_for`: workers that have not confirmed the phase yet."""

    id: int
    version: str
    previous: str
    mode: Mode
    phase: Phase
    attempt: int
    started_at: float
    deadline: float | None = None
    finished_at: float | None = None
    waiting_for: list[str] = Field(default_factory=list[str])
    replaced: list[str] = Field(default_factory=list[str])
    message: str = ""
    seconds: dict[str, float] = Field(default_factory=dict)
    workers: list[WorkerWeights] = Field(default_factory=list[WorkerWeights])


class Weights(Wire):
    """The fleet's weights. `revision` grows with every change; `versions`: published so far, the latest last."""

    revision: int
    version: str
    versions: list[str]
    transaction: Transaction | None = None


class WorkerInfo(Wire):
    """A worker by its last heartbeat. `figures`: what it says of itself (slots, kv_used, device, …)."""

    name: str
    state: str
    version: str
    seen_seconds_ago: float
    inflight: int
    figures: dict[str, float | int | str]


class WorkerList(Wire):
    """The fleet, by name."""

    workers: list[WorkerInfo]


class Release(Wire):
    """Hands the GPUs to the trainer. sleep: engines free their memory, processes stay. stop: no worker is left."""

    mode: Literal["sleep", "stop"] = "sleep"


class FleetState(Wire):
    """Whether the GPUs are openseer's. `idle_gpu_seconds`: GPU time, summed, in which awake workers ran nothing."""

    state: FleetWord
    mode: Literal["sleep", "stop"] | None = None
    since: float
    waiting_for: list[str] = Field(default_factory=list[str])
    idle_gpu_seconds: float = 0.0
    busy_gpu_seconds: float = 0.0


class Autoscaling(Wire):
    """For KEDA and its kind. `backlog_tokens`: expected tokens of all that waits and runs, less those generated."""

    queue_depth: int
    running: int
    backlog_tokens: int
    workers: int
    desired_workers: int


class JobStatus(Wire):
    """The job at a glance."""

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
    transaction: Transaction | None = None
