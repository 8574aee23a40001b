"""The state of one job at one moment, and the job's memory: the input of `plan`.

All fields are plain values: the observer converts objects of Kubernetes and the store into these.
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
"""The component that submits prompts and writes results."""


RELEASED = "released to the trainer"
"""Reason for 0 workers while the trainer has the GPUs; kept in the status as the reason of the last scaling."""


class PodPhase(StrEnum):
    """A pod's phase by its Kubernetes name; an unknown phase counts as RUNNING."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a worker or the driver.

    `index`: of its worker (None: the driver); `rank`: within the gang; `template`: hash of the spec it was created
    from; `attempt`: number of its incarnation; `gone_by`: end of its grace period (seconds since the epoch), None while
    it is not being deleted; `conditions`: (type, status) pairs; `problem`: why it does not start, "" when unknown;
    `message`: its termination message; `stamp`: whether its annotations report it as busy, None without annotations;
    `start_seconds`: from its creation until it was ready, None before; `started_at`: when its node accepted it (seconds
    since the epoch); `refused`: whether its node refused it; `avoids`: nodes that the operator excludes for it. Its
    state is that of openseer's own container: `phase` is that container's end, `ready` its readiness. `lingers`: it has
    ended and a sidecar has not. `gated`: another controller decides when it is scheduled. `setup_failed`: a container
    before it failed, so that it never ran.
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
        """The name of its component: worker-3, driver."""
        return DRIVER if self.index is None else worker_name(self.index)

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted."""
        return self.gone_by is not None

    @property
    def ended(self) -> bool:
        """Whether openseer's own process in it has ended."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def is_held_up(self) -> bool:
        """Whether a known cause prevents its start: no room, a gate, an image."""
        return not (self.ready or self.ended or self.leaving) and bool(self.unschedulable or self.gated or self.problem)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The last report of a worker in the store.

    `pod`: uid of the pod that sent it (a name recurs, a uid does not); `held_tokens`: context tokens of its requests,
    which another worker would have to compute again; `sick`: the fault of its GPU, "" for none;
    `not_loaded`: the reason why it cannot load the fleet's weights, "" for none.
    """

    index: int
    pod: str
    state: WorkerState
    held_tokens: int = 0
    sick: str = ""
    not_loaded: str = ""


@dataclass(frozen=True, slots=True)
class GpuSeconds:
    """GPU time of a job's workers so far, in whole seconds summed over GPUs: awake without and with requests.

    A starting or sleeping engine counts as neither.
    """

    idle: int = 0
    busy: int = 0

    @staticmethod
    def of(job: RolloutJob, load: QueueLoad) -> "GpuSeconds":
        """From the reports of all workers so far, stopped ones included."""
        gpus = job.spec.workers.parallelism.gpus
        return GpuSeconds(int(gpus * load.idle_seconds), int(gpus * load.busy_seconds))

    def at_least(self, other: "GpuSeconds") -> "GpuSeconds":
        """The maximum of both: a store that lost its last second has lower sums."""
        return GpuSeconds(max(self.idle, other.idle), max(self.busy, other.busy))


@dataclass(frozen=True, slots=True)
class StoreView:
    """The content of the job's store: counts of the batch (in mode serve of all batches with data), and fresh reports
    of workers by pod uid. `released`: the trainer took the GPUs and wants no worker. `memory`: use of its memory.
    `inflight`: requests that workers run; `worker_speed`: recent tokens per second of a busy worker, None while
    unknown. `gpu_seconds`: of all its workers so far."""

    progress: BatchProgress
    reports: Mapping[str, WorkerReport] = field(default_factory=dict[str, WorkerReport])
    released: bool = False
    memory: StoreMemory = field(default_factory=StoreMemory)
    inflight: int = 0
    worker_speed: float | None = None
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Why the operator cannot read a store that may work: it lacks a right, or the job's URL is unusable.
    `reason`: one CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The ended incarnations of a component.

    `count`: failures that the restart budget counts; `attempts`: all ends, including infrastructure failures, and the
    number of the next incarnation; `streak`: ends in quick succession, by which the back-off grows; `at`: time of the
    last one; `since`: start of the restart window at whose end one of `count` is forgotten.
    """

    count: int = 0
    attempts: int = 0
    streak: int = 0
    reason: str = ""
    at: float = 0.0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class SickNode:
    """A node with a GPU that a worker reported as sick, avoided until a user clears it; or a node that refused a pod,
    avoided `until` a time (seconds since the epoch)."""

    node: str
    worker: str
    reason: str
    at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object that Kubernetes refused to create in the last reconcile step, with its `message`.
    `taken`: the name belongs to an object of another owner."""

    kind: str
    name: str
    message: str
    taken: bool = False


class TemplateAnswer(Enum):
    """Whether Kubernetes accepts the pods of a job's templates. HINDERED: others than the API server refuse them
    now, so that the server may not have validated them."""

    TAKEN = auto()
    INVALID = auto()
    HINDERED = auto()
    UNANSWERED = auto()


@dataclass(frozen=True, slots=True)
class TemplateVerdict:
    """The verdict on the templates of one job; a job without templates is TAKEN. `problem`: Kubernetes' message."""

    answer: TemplateAnswer = TemplateAnswer.TAKEN
    problem: str = ""

    @property
    def makes(self) -> bool:
        """Whether pods may be created from them; the job's deadline does not run before."""
        return self.answer in (TemplateAnswer.TAKEN, TemplateAnswer.HINDERED)

    @property
    def replaces(self) -> bool:
        """Whether pods may be deleted to be replaced."""
        return self.answer is TemplateAnswer.TAKEN


class JobOutcome(StrEnum):
    """The outcome of a job."""

    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a job: outcome, reason in one CamelCase word, message for users, and time."""

    outcome: JobOutcome
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The operator's memory of a job, kept in the job's status and written there before it is acted upon.

    `desired`: workers wanted at the last reconcile step; `scaled_at`: when that last changed, and why;
    `progress`: the last counts; `revived_by`: the last request to revive the job;
    `backlog`: the backlog and its need of workers; `scaling`: of a job that scales itself;
    `gpu_seconds`: the GPU time, which outlives the store; `redis_lost`: whether
    Redis had to stay on a node that does not answer.
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
        """Nodes that new worker pods must not run on."""
        return tuple(sick.node for sick in self.sick_nodes)

    @property
    def refusing(self) -> tuple[str, ...]:
        """Avoided nodes that refused a pod: the driver, which needs no GPU, avoids only these."""
        return tuple(sick.node for sick in self.sick_nodes if sick.until is not None)

    @property
    def released(self) -> bool:
        """Whether no worker is wanted because the trainer has the GPUs."""
        return self.scale_reason == RELEASED


@dataclass(frozen=True, slots=True)
class Observation:
    """One job at one moment (`now`: seconds since the epoch, by the clock of the cluster's timestamps).

    `shared`: the objects that the job's pods need (services, policies, its Redis, …) by key: True when the object
    exists as specified. `store_replicas`: of the managed Redis; None when there is none. `store_current`: whether
    it is as specified; `volume_problem`: why its volume is too small, "" when it is not. `store_pods`: number of
    its pods; `store_missing_since`: since when it lacks its pod. `redis`: the serving pod;
    `volume_risk`: why a second one might write to the volume of one whose node does not answer, "" when Kubernetes
    prevents that. `refusals`: objects that could not be created in the last reconcile step, in order of creation;
    `templates`: whether Kubernetes accepts pods of the templates.
    `store`: None when the store did not answer; `store_loads`: it is loading its data; `store_problem`: why the
    operator cannot read it. `finalizer`: whether the job has openseer's. `revive`: the request to revive it if it has
    failed, "" for none.
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
        """The newest known counts."""
        return self.store.progress if self.store is not None else self.memory.progress

    @property
    def gpu_seconds(self) -> GpuSeconds:
        """The newest known sums; they only grow."""
        known = self.memory.gpu_seconds
        return self.store.gpu_seconds.at_least(known) if self.store is not None else known

    @property
    def released(self) -> bool:
        """Whether the trainer has the GPUs; the last known answer while the store does not answer."""
        return self.store.released if self.store is not None else self.memory.released

    def report_of(self, pod: Pod) -> WorkerReport | None:
        """The last report of the worker in this pod."""
        return self.store.reports.get(pod.uid) if self.store is not None else None
