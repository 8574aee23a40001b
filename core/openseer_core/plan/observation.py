"""The state of one job at one moment, and the memory of it: the input of `plan`.

Everything is a plain value: whoever observes turns Kubernetes' and the store's objects into these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from openseer_core.ids import worker_name
from openseer_core.manifest.job import RolloutJob
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
    tell autoscalers that it is busy, None when it has none.
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
    problem: str = ""
    exit_code: int | None = None
    message: str = ""
    conditions: frozenset[tuple[str, str]] = frozenset()
    stamp: bool | None = None

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
        """Whether its processes are over."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)


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
class StoreView:
    """What the job's store holds: counts of the batch, in mode serve those of all batches whose data are there, and the
    fresh reports of workers by pod uid. `released`: the trainer asked for the GPUs, and that no worker be left.
    `memory`: how full it is."""

    progress: BatchProgress
    reports: Mapping[str, WorkerReport] = field(default_factory=dict[str, WorkerReport])
    released: bool = False
    memory: StoreMemory = field(default_factory=StoreMemory)


@dataclass(frozen=True, slots=True)
class Failure:
    """How often a component ended before its time.

    `count`: failures that the restart budget counts; `attempts`: all ends, infrastructure's included; it is also the
    number of the next incarnation; `streak`: ends in quick succession, which the back-off grows with; `at`: of the
    last one.
    """

    count: int = 0
    attempts: int = 0
    streak: int = 0
    reason: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class SickNode:
    """A node that a worker reported a sick GPU on."""

    node: str
    worker: str
    reason: str
    at: float


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
    `progress`: the counts last seen.
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

    @property
    def avoid(self) -> tuple[str, ...]:
        """Nodes that no new pod of a worker should land on."""
        return tuple(sick.node for sick in self.sick_nodes)

    @property
    def released(self) -> bool:
        """Whether no worker is wanted because a trainer has the GPUs."""
        return self.scale_reason == RELEASED


@dataclass(frozen=True, slots=True)
class Observation:
    """One job at one moment (`now`: seconds since the epoch).

    `shared`: the objects that the job's pods stand on (services, policies, its Redis, …) by key: True when the object
    is there as it should be. `store_replicas`: of the managed Redis; None when there is none. `store_pods`: how many
    of its pods exist. `store`: None when the store did not answer; `store_loads`: it said that it loads its data.
    `finalizer`: whether ours is on the job.
    """

    now: float
    job: RolloutJob
    memory: Memory = field(default_factory=Memory)
    deleting_since: float | None = None
    finalizer: bool = False
    shared: Mapping[str, bool] = field(default_factory=dict[str, bool])
    store_replicas: int | None = None
    store_pods: int = 0
    pods: tuple[Pod, ...] = ()
    store: StoreView | None = None
    store_loads: bool = False

    @property
    def progress(self) -> BatchProgress:
        """The newest counts there are."""
        return self.store.progress if self.store is not None else self.memory.progress

    @property
    def released(self) -> bool:
        """Whether the trainer has the GPUs; while the store does not answer, what it held last."""
        return self.store.released if self.store is not None else self.memory.released

    def report_of(self, pod: Pod) -> WorkerReport | None:
        """The last report of the worker in this very pod."""
        return self.store.reports.get(pod.uid) if self.store is not None else None
