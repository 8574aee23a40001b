"""The settings of a worker process: the job, the worker's name and index, and the store's address."""

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
    """The settings of one boot of one worker. `index` determines its own lane, and its core on a CPU.

    `node` and `pod`: in a cluster, the name of its node and the uid of its pod. `leader`: in a gang the host of rank 0,
    otherwise "" (see gang). `kv_pool`: mount point of spec.kvPool.pvc, or HOST:PORT of Mooncake's master. `routed`: the
    job's folder for rows of routed experts; the process that returns results reads it.
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
        """The worker's name, the same after a restart, and its boot id, new at each start."""
        return WorkerId(worker_name(self.index), self.boot)

    @property
    def is_gang(self) -> bool:
        """Whether this process is one rank of several. Without a leader (a local run) one process has all GPUs."""
        return bool(self.leader) and self.job.spec.workers.parallelism.nodes > 1

    @property
    def gpus(self) -> int:
        """Number of GPUs of this pod that the engine uses; they are the first visible ones."""
        parallelism = self.job.spec.workers.parallelism
        return parallelism.gpus // (parallelism.nodes if self.is_gang else 1)

    @property
    def place(self) -> WorkerMetrics:
        """Node and pod, for heartbeats; empty outside a cluster."""
        return WorkerMetrics({name: value for name, value in (("node", self.node), ("pod", self.pod)) if value})

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes that the worker claims from: its own lane first, then the shared lane."""
        return (str(self.index), SHARED_LANE)

    @property
    def cache_salt(self) -> str:
        """Part of every key of cached KV, so that KV of other jobs and other weights never matches."""
        return f"{self.job_name}@{self.version}"

    @property
    def fleet(self) -> str:
        """Key of the job's workers in a shared KV pool, from job and store URL. It may contain a password, so only its
        digest is used as a name."""
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
        """Folder for rows of routed experts; None if none are captured."""
        return Path(self.routed) if self.job.spec.routing.capture is not None and self.routed else None

    @property
    def job_name(self) -> str:
        """The job's namespace and name."""
        return f"{self.job.namespace}/{self.job.name}"
