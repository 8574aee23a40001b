"""The state of one job at one moment, and the memory of it: the input of `plan`.

Everything is a plain value: whoever observes turns Kubernetes' and the store's objects into these.
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
"""Why no worker is wanted while the trainer has the GPUs; kept in the status as the reason of the last scaling."""


class PodPhase(StrEnum):
    """A pod's phase, as Kubernetes names it; a pod whose state is unknown counts as RUNNING."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a worker or the driver.

    `index`: of its worker (None: the driver); `rank`: within the gang; `template`: hash of the spec it was made
    from; `attempt`: which incarnation of its component it belongs to; `gone_by`: when it must be gone at the latest
    (seconds since the epoch), None while nobody asked it to go; `conditions`: (type, status) pairs; `problem`: why it
    does not start, "" when no reason is known; `message`: its termination message; `stamp`: whether its annotations
    tell autoscalers that it is busy, None when it has none; `start_seconds`: from its creation until it was ready, None
    while it is not; `started_at`: when its node took it on (seconds since the epoch); `refused`: whether its node would
    not take it on; `avoids`: nodes that the operator keeps it off.

    What it is, is judged by openseer's own container: `phase` says whether that one has ended, and how; `ready` whether
    that one is. `lingers`: it has ended and a sidecar has not. `gated`: something else decides when it is scheduled.
    `setup_failed`: a container before it failed, so that it never ran.
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
        """Whose pod this is: worker-3, driver."""
        return DRIVER if self.index is None else worker_name(self.index)

    @property
    def leaving(self) -> bool:
        """Whether it was asked to go."""
        return self.gone_by is not None

    @property
    def ended(self) -> bool:
        """Whether openseer's own process in it is over."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def is_held_up(self) -> bool:
        """Whether something known keeps it from starting: no room, a gate, an image."""
        return not (self.ready or self.ended or self.leaving) and bool(self.unschedulable or self.gated or self.problem)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker last reported through the store.

    `pod`: uid of the pod that sent it (a name recurs, a uid does not); `held_tokens`: context tokens of what it runs,
    which another worker would have to compute again; `sick`: why its GPU should not be used, "" when it is well;
    `not_loaded`: what keeps it from loading the fleet's weights, "" for nothing.
    """

    index: int
    pod: str
    state: WorkerState
    held_tokens: int = 0
    sick: str = ""
    not_loaded: str = ""


@dataclass(frozen=True, slots=True)
class GpuSeconds:
    """GPU time of a job's workers so far, in whole seconds summed over their GPUs: awake, running nothing or something.

    An engine that starts or sleeps counts as neither.
    """

    idle: int = 0
    busy: int = 0

    @staticmethod
    def of(job: RolloutJob, load: QueueLoad) -> "GpuSeconds":
        """From what all workers have reported, those that are gone included."""
        gpus = job.spec.workers.parallelism.gpus
        return GpuSeconds(int(gpus * load.idle_seconds), int(gpus * load.busy_seconds))

    def at_least(self, other: "GpuSeconds") -> "GpuSeconds":
        """The greater ones: a store that lost its last second knows less."""
        return GpuSeconds(max(self.idle, other.idle), max(self.busy, other.busy))


@dataclass(frozen=True, slots=True)
class StoreView:
    """What the job's store holds: counts of the batch, in mode serve those of all batches whose data are there, and the
    fresh reports of workers by pod uid. `released`: the trainer asked for the GPUs, and that no worker be left.
    `memory`: how full it is. `inflight`: requests that workers run; `worker_speed`: tokens that a busy worker has
    generated per second of late, None while too little is known. `gpu_seconds`: of all its workers so far."""

    progress: BatchProgress
    reports: Mapping[str, WorkerReport] = field(default_factory=dict[str, WorkerReport])
    released: bool = False
    memory: StoreMemory = field(default_factory=StoreMemory)
    inflight: int = 0
    worker_speed: float | None = None
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Why the store is not read though it may be well: the operator lacks a right, or the job's URL cannot be used.
    `reason`: in one CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """How often a component ended before its time.

    `count`: failures that the restart budget counts; `attempts`: all ends, infrastructure's included; it is also the
    number of the next incarnation; `streak`: ends in quick succession, which the back-off grows with; `at`: of the
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
    """A node that a worker reported a sick GPU on, or that refused a pod: then it is avoided `until` a time (seconds
    since the epoch), else until somebody takes it out."""

    node: str
    worker: str
    reason: str
    at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object that Kubernetes would not let the operator make at the last reconcile step, `message` in its own words.
    `taken`: an object that is not the job's has the name."""

    kind: str
    name: str
    message: str
    taken: bool = False


class TemplateAnswer(Enum):
    """Whether Kubernetes takes the pods that a job's templates make. HINDERED: others than the server refuse them now,
    so that it may never have looked."""

    TAKEN = auto()
    INVALID = auto()
    HINDERED = auto()
    UNANSWERED = auto()


@dataclass(frozen=True, slots=True)
class TemplateVerdict:
    """On the templates of one job; a job without any is TAKEN. `problem`: why they are not, in Kubernetes' words."""

    answer: TemplateAnswer = TemplateAnswer.TAKEN
    problem: str = ""

    @property
    def makes(self) -> bool:
        """Whether anything may be made of them; the job's clock does not run before."""
        return self.answer in (TemplateAnswer.TAKEN, TemplateAnswer.HINDERED)

    @property
    def replaces(self) -> bool:
        """Whether pods may go for others to come."""
        return self.answer is TemplateAnswer.TAKEN


class JobOutcome(StrEnum):
    """How a job ended."""

    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a job: how, why in one CamelCase word, why for a person, and when."""

    outcome: JobOutcome
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What must outlive the operator; kept in the job's status and written there before it is acted upon.

    `desired`: workers wanted at the last reconcile step; `scaled_at`: when that last changed, and why;
    `progress`: the counts last seen; `revived_by`: the request to revive the job that was last seen;
    `backlog`: what follows from the counts for the number of workers; `scaling`: of a job that scales itself;
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
        """Nodes that no new pod of a worker should land on."""
        return tuple(sick.node for sick in self.sick_nodes)

    @property
    def refusing(self) -> tuple[str, ...]:
        """Those of them that refused a pod: the driver, which needs no GPU, avoids these alone."""
        return tuple(sick.node for sick in self.sick_nodes if sick.until is not None)

    @property
    def released(self) -> bool:
        """Whether no worker is wanted because a trainer has the GPUs."""
        return self.scale_reason == RELEASED


@dataclass(frozen=True, slots=True)
class Observation:
    """One job at one moment (`now`: seconds since the epoch, by the clock that the cluster's own times are of).

    `shared`: the objects that the job's pods stand on (services, policies, its Redis, …) by key: True when the object
    is there as it should be. `store_replicas`: of the managed Redis; None when there is none. `store_current`: whether
    it is as it should be; `volume_problem`: why its volume is too small, "" when it is not. `store_pods`: how many of
    its pods exist; `store_missing_since`: since when it has none and should. `redis`: the one that serves;
    `volume_risk`: why a second one might write to the volume of one whose node does not answer, "" when Kubernetes
    keeps that from happening. `refusals`: what could not be made at the last reconcile step, in the order of its tries;
    `templates`: whether Kubernetes takes what the pod templates make.
    `store`: None when the store did not answer; `store_loads`: it said that it loads its data; `store_problem`: why the
    operator may not read it. `finalizer`: whether ours is on the job. `revive`: the request to revive it if it has
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
        """The newest counts there are."""
        return self.store.progress if self.store is not None else self.memory.progress

    @property
    def gpu_seconds(self) -> GpuSeconds:
        """The newest sums there are; they only grow."""
        known = self.memory.gpu_seconds
        return self.store.gpu_seconds.at_least(known) if self.store is not None else known

    @property
    def released(self) -> bool:
        """Whether the trainer has the GPUs; while the store does not answer, what it held last."""
        return self.store.released if self.store is not None else self.memory.released

    def report_of(self, pod: Pod) -> WorkerReport | None:
        """The last report of the worker in this very pod."""
        return self.store.reports.get(pod.uid) if self.store is not None else None
