"""The state of one job at one moment, with the job's memory: the input of `plan`.

All fields are plain values: the operator's `Observer` converts the objects of Kubernetes and the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from openseer_core.ids import worker_name
from openseer_core.manifest.job import RolloutJob
from openseer_core.plan.backlog import Backlog, ScalingState
from openseer_core.queue.batch import QueueLoad
from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.store_memory import StoreMemory
from openseer_core.worker.heartbeat import WorkerState

DRIVER = "driver"
"""Name of the component that submits prompts and writes results."""


RELEASED = "released to the trainer"
"""Reason for 0 workers while the trainer has the GPUs; the status contains it as the reason of the last scaling."""


class PodPhase(StrEnum):
    """A pod's phase, by its name in Kubernetes; an unknown phase counts as RUNNING."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a worker, the driver or the managed Redis.

    `index`: number of its worker, None for driver and Redis; `rank`: its rank in a gang, else 0; `template`: hash of
    the spec from which it was created; `attempt`: number of its incarnation; `gone_by`: end of its grace period
    (seconds since the epoch), None unless it is being deleted; `node`: its node, "" before it has one; `conditions`:
    (type, status) pairs; `problem`: why it does not start, or why it ended, "" if unknown; `stamp`: whether its
    annotations report it as busy, None without annotations; `start_seconds`: time from its creation until it was ready,
    None before; `started_at`: time at which its node accepted it (seconds since the epoch), None before; `refused`:
    whether its node refused it; `avoids`: nodes that the operator excludes for it; `unschedulable`: whether the
    scheduler finds no node for it; `gated`: whether another controller has to permit its scheduling.

    The state is that of openseer's own container: `phase` and `exit_code` are those of its end, `message` is its
    termination message, `ready` its readiness. `lingers`: whether it has ended but a sidecar has not; `setup_failed`:
    whether an init container failed, so that it never ran.
    """

    name: str
    uid: str
    index: int | None
    rank: int = 0
    template: str = ""
    attempt: int = 0
    phase: PodPhase = PodPhase.PENDING
    ready: bool = False
    gone_by: float | None = None
    node: str = ""
    unschedulable: bool = False
    gated: bool = False
    problem: str = ""
    exit_code: int | None = None
    message: str = ""
    lingers: bool = False
    setup_failed: bool = False
    conditions: frozenset[tuple[str, str]] = frozenset()
    stamp: bool | None = None
    start_seconds: float | None = None
    started_at: float | None = None
    refused: bool = False
    avoids: frozenset[str] = frozenset()

    @property
    def component(self) -> str:
        """The name of its component: worker-3 or driver."""
        return DRIVER if self.index is None else worker_name(self.index)

    @property
    def leaving(self) -> bool:
        """Whether the pod is being deleted."""
        return self.gone_by is not None

    @property
    def ended(self) -> bool:
        """Whether openseer's own process in the pod has ended."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def is_held_up(self) -> bool:
        """Whether a known cause prevents the pod's start: no node with room, a gate, a problem (such as an image)."""
        return not (self.ready or self.ended or self.leaving) and bool(self.unschedulable or self.gated or self.problem)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The last report of a worker in the store.

    `index`: the worker's number; `pod`: uid of the pod that sent the report (names recur, uids do not); `held_tokens`:
    context tokens of its requests, which another worker would have to compute again; `sick`: the fault of its GPU, ""
    for none; `not_loaded`: why it cannot load the fleet's weights, "" if it can.
    """

    index: int
    pod: str
    state: WorkerState
    held_tokens: int = 0
    sick: str = ""
    not_loaded: str = ""


@dataclass(frozen=True, slots=True)
class GpuSeconds:
    """GPU time of a job's workers so far, in whole seconds, summed over GPUs.

    `idle`: time in which engines were awake without requests; `busy`: time with requests. Starting and sleeping engines
    count as neither.
    """

    idle: int = 0
    busy: int = 0

    @staticmethod
    def of(job: RolloutJob, load: QueueLoad) -> "GpuSeconds":
        """Computes the GPU time from the sums of all workers that the job has had, stopped ones included."""
        gpus = job.spec.workers.parallelism.gpus
        return GpuSeconds(int(gpus * load.idle_seconds), int(gpus * load.busy_seconds))

    def at_least(self, other: "GpuSeconds") -> "GpuSeconds":
        """The larger value of each: a store that lost its last writes has lower sums."""
        return GpuSeconds(max(self.idle, other.idle), max(self.busy, other.busy))


@dataclass(frozen=True, slots=True)
class StoreView:
    """The content of the job's store.

    `progress`: counts of the batch (in mode serve, of all batches with data); `reports`: recent reports of workers, by
    the pods' uids; `released`: whether the trainer has the GPUs and wants no worker; `memory`: use of the store's
    memory; `inflight`: number of running requests; `worker_speed`: recent tokens per second of a busy worker, None
    while unknown; `gpu_seconds`: GPU time of all workers so far.
    """

    progress: BatchProgress
    reports: Mapping[str, WorkerReport] = field(default_factory=dict[str, WorkerReport])
    released: bool = False
    memory: StoreMemory = field(default_factory=StoreMemory)
    inflight: int = 0
    worker_speed: float | None = None
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Why the operator cannot read a store, although the store may work: the operator lacks a permission, or the job's
    URL is unusable. `reason`: one CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The ended incarnations of a component.

    `count`: number of failures that count against the restart budget; `attempts`: number of all ends, infrastructure
    failures included, which is the number of the next incarnation; `streak`: number of ends in quick succession, with
    which the back-off grows; `reason`, `at`: cause and time of the last end; `since`: start of the restart window, at
    the end of which one failure of `count` is forgotten. Times are seconds since the epoch.
    """

    count: int = 0
    attempts: int = 0
    streak: int = 0
    reason: str = ""
    at: float = 0.0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class SickNode:
    """A node that new pods avoid. Either a worker reported a GPU of the node as sick: then it is avoided until a user
    clears it (`until` is None). Or the node refused a pod: then it is avoided `until` that time.

    `worker`: the component that reported it; `at`: time of the report. Times are seconds since the epoch.
    """

    node: str
    worker: str
    reason: str
    at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object that Kubernetes refused to create in the last reconcile step. `message`: Kubernetes' message; `taken`:
    whether an object of another owner has the name."""

    kind: str
    name: str
    message: str
    taken: bool = False


class TemplateAnswer(Enum):
    """Whether Kubernetes accepts the objects of a job's templates.

    TAKEN: it accepts them. INVALID: the API server finds them invalid. HINDERED: an admission plugin refuses them
    now, so that the API server may not have validated them. UNANSWERED: the API server has not answered.
    """

    TAKEN = auto()
    INVALID = auto()
    HINDERED = auto()
    UNANSWERED = auto()


@dataclass(frozen=True, slots=True)
class TemplateVerdict:
    """The verdict on the templates of one job; TAKEN for a job without templates. `problem`: Kubernetes' message."""

    answer: TemplateAnswer = TemplateAnswer.TAKEN
    problem: str = ""

    @property
    def makes(self) -> bool:
        """Whether pods may be created from the templates. Before that the time of the job's deadline does not run."""
        return self.answer in (TemplateAnswer.TAKEN, TemplateAnswer.HINDERED)

    @property
    def replaces(self) -> bool:
        """Whether pods may be deleted in order to replace them."""
        return self.answer is TemplateAnswer.TAKEN


class JobOutcome(StrEnum):
    """The outcome of a finished job."""

    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a job: outcome, reason in one CamelCase word, message for users, and time (seconds since the
    epoch)."""

    outcome: JobOutcome
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The operator's memory of a job. It is stored in the job's status, and written before any action that relies on
    it.

    `started_at`: time from which the deadline counts (seconds since the epoch), None before the start and while
    suspended; `suspended`: whether the job was suspended at the last reconcile step; `ending`: the end of the job, None
    before; `desired`: number of workers wanted at the last reconcile step; `scaled_at`, `scale_reason`: time and reason
    of its last change; `failures`: by component; `sick_nodes`: the nodes that new pods avoid; `progress`: the last
    known counts; `revived_by`: the last request to revive the job; `backlog`: the backlog and the number of workers
    that it needs; `scaling`: the state of autoscaling; `gpu_seconds`: the GPU time so far, also after the store was
    deleted; `redis_lost`: whether Redis had to stay on a node that does not answer.
    """

    started_at: float | None = None
    suspended: bool = False
    ending: Ending | None = None
    desired: int | None = None
    scaled_at: float | None = None
    scale_reason: str = ""
    failures: Mapping[str, Failure] = field(default_factory=dict[str, Failure])
    sick_nodes: tuple[SickNode, ...] = ()
    progress: BatchProgress = field(default_factory=BatchProgress)
    revived_by: str = ""
    backlog: Backlog = field(default_factory=Backlog)
    scaling: ScalingState = field(default_factory=ScalingState)
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)
    redis_lost: bool = False

    @property
    def avoid(self) -> tuple[str, ...]:
        """The nodes on which new pods of workers must not run."""
        return tuple(sick.node for sick in self.sick_nodes)

    @property
    def refusing(self) -> tuple[str, ...]:
        """The nodes that refused a pod. The driver needs no GPU, so it avoids only these."""
        return tuple(sick.node for sick in self.sick_nodes if sick.until is not None)

    @property
    def released(self) -> bool:
        """Whether no worker is wanted, because the trainer has the GPUs."""
        return self.scale_reason == RELEASED


@dataclass(frozen=True, slots=True)
class Observation:
    """One job at one moment.

    `now`: the time on the API server's clock; `deleting_since`: time of the job's deletion, None without one;
    `finalizer`: whether the job has openseer's finalizer; `revive`: the request to revive the job if it has failed, ""
    for none. Times are seconds since the epoch. `shared`: the objects that the job's pods need (Services, policies, …),
    by key: True if the object exists as specified.

    Of the managed Redis: `store_replicas`: replicas of its StatefulSet, None if that does not exist; `store_current`:
    whether the StatefulSet is as specified; `volume_problem`: why its volume is too small, "" if it is not;
    `store_pods`: number of its pods; `store_missing_since`: time since which it lacks its pod, None if it has one;
    `redis`: its serving pod, None without one; `volume_risk`: why a second pod could damage or lack the data if the
    node of `redis` does not answer, "" if Kubernetes prevents that.

    `refusals`: objects that Kubernetes refused to create in the last reconcile step, in the order of creation;
    `templates`: whether Kubernetes accepts the objects of the templates. `store`: the content of the store, None if it
    does not answer; `store_loads`: whether it is loading its data; `store_problem`: why the operator cannot read it,
    None for none.
    """

    now: float
    job: RolloutJob
    memory: Memory = field(default_factory=Memory)
    deleting_since: float | None = None
    finalizer: bool = False
    shared: Mapping[str, bool] = field(default_factory=dict[str, bool])
    store_replicas: int | None = None
    store_current: bool = True
    volume_problem: str = ""
    store_pods: int = 0
    store_missing_since: float | None = None
    redis: Pod | None = None
    volume_risk: str = ""
    refusals: tuple[Refusal, ...] = ()
    templates: TemplateVerdict = field(default_factory=TemplateVerdict)
    pods: tuple[Pod, ...] = ()
    store: StoreView | None = None
    store_loads: bool = False
    revive: str = ""
    store_problem: StoreProblem | None = None

    @property
    def progress(self) -> BatchProgress:
        """The newest known counts of requests and tokens."""
        return self.store.progress if self.store is not None else self.memory.progress

    @property
    def gpu_seconds(self) -> GpuSeconds:
        """The newest known GPU time; it never decreases."""
        known = self.memory.gpu_seconds
        return self.store.gpu_seconds.at_least(known) if self.store is not None else known

    @property
    def released(self) -> bool:
        """Whether the trainer has the GPUs; the last known value while the store does not answer."""
        return self.store.released if self.store is not None else self.memory.released

    def report_of(self, pod: Pod) -> WorkerReport | None:
        """The last report of the worker in this pod; None without one."""
        return self.store.reports.get(pod.uid) if self.store is not None else None
