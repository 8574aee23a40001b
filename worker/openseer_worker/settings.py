"""The settings of a worker process: the job, its own name and number, and where the store is."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from openseer_core.ids import INITIAL_VERSION, WorkerId, worker_name
from openseer_core.manifest.fleet import GANG_PORT
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.group import SHARED_LANE
from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.kv_pool.places import EnginePool, fleet_folder


def _boot_id() -> str:
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One boot of one worker. `index` names the lane that only it claims from, and its core on a CPU.

    `node` and `pod`: in a cluster, the name of its machine and its own uid. `leader`: in a gang the host of rank 0,
    else "" (see gang). `kv_pool`: where the KV pool is: the folder of spec.kvPool.pvc, where that is mounted, or
    HOST:PORT of Mooncake's master.
    `routed`: the job's folder for rows of routed experts, which whoever gives its results reads.
    """

    job: RolloutJob
    store_url: str
    index: int
    version: str = INITIAL_VERSION
    boot: str = field(default_factory=_boot_id)
    node: str = ""
    pod: str = ""
    rank: int = 0
    leader: str = ""
    gang_port: int = GANG_PORT
    kv_pool: str = ""
    routed: str = ""

    @property
    def worker(self) -> WorkerId:
        """Name (recurs) and boot (never does)."""
        return WorkerId(worker_name(self.index), self.boot)

    @property
    def is_gang(self) -> bool:
        """True when this process is one rank of several. Without a leader, as locally, one process has all GPUs."""
        return bool(self.leader) and self.job.spec.workers.parallelism.nodes > 1

    @property
    def gpus(self) -> int:
        """How many GPUs an engine on GPUs takes in this process's pod, the first of those that are visible."""
        parallelism = self.job.spec.workers.parallelism
        return parallelism.gpus // (parallelism.nodes if self.is_gang else 1)

    @property
    def place(self) -> WorkerMetrics:
        """Where it runs, for its heartbeats; empty outside a cluster."""
        return WorkerMetrics({name: value for name, value in (("node", self.node), ("pod", self.pod)) if value})

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes it claims from: its own first, then everybody's."""
        return (str(self.index), SHARED_LANE)

    @property
    def cache_salt(self) -> str:
        """Keeps cached KV of other jobs and other weights from ever matching."""
        return f"{self.job_name}@{self.version}"

    @property
    def fleet(self) -> str:
        """What the workers of one job have in common, and no other job has: it may hold a password."""
        return f"{self.job_name} {self.store_url}"

    @property
    def pool(self) -> EnginePool | None:
        """The KV pool of the job's engines; None without one."""
        pool = self.job.spec.kv_pool
        if pool.backend == "mooncake":
            return EnginePool(pool.backend, master=self.kv_pool) if self.kv_pool else None
        path = pool.path or self.kv_pool
        return EnginePool(pool.backend, fleet_folder(path, self.fleet)) if pool.is_on and path else None

    @property
    def routes(self) -> Path | None:
        """Where rows of routed experts lie; None where none are captured."""
        return Path(self.routed) if self.job.spec.routing.capture is not None and self.routed else None

    @property
    def job_name(self) -> str:
        """Namespace and name."""
        return f"{self.job.namespace}/{self.job.name}"
