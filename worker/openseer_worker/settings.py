"""What a worker process is told: the job, its own name and number, and where the store is."""

import uuid
from dataclasses import dataclass, field

from openseer_core.group import SHARED_LANE
from openseer_core.ids import WorkerId
from openseer_core.job import RolloutJob

INITIAL_VERSION = "initial"
"""The weights version of a batch job, whose weights never change."""


def _boot_id() -> str:
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One boot of one worker. `index` names the lane that only it claims from, and its core on a CPU."""

    job: RolloutJob
    store_url: str
    index: int
    version: str = INITIAL_VERSION
    boot: str = field(default_factory=_boot_id)

    @property
    def worker(self) -> WorkerId:
        """Name (recurs) and boot (never does)."""
        return WorkerId(worker_name(self.index), self.boot)

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes it claims from: its own first, then everybody's."""
        return (str(self.index), SHARED_LANE)

    @property
    def cache_salt(self) -> str:
        """Keeps cached KV of other jobs and other weights from ever matching."""
        return f"{self.job.namespace}/{self.job.name}@{self.version}"


def worker_name(index: int) -> str:
    """The name of the `index`-th worker of a job."""
    return f"worker-{index}"
