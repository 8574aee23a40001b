"""A job that is served: its manifest, its store, and what of both is read at every call."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from openseer_api.job.drafting import DraftsOfBatches
from openseer_api.job.rows import RowSource
from openseer_core.admission import ModelLimits, limits_of_manifest
from openseer_core.errors import ModelError
from openseer_core.ids import worker_name
from openseer_core.manifest.generation import JobMode
from openseer_core.manifest.job import RolloutJob, Sampling
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.placement import Placement
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.hearing import Hearing
from openseer_core.wire.batches import BatchSpec
from openseer_core.worker.heartbeat import WorkerStatus, reported_limits
from openseer_store.port import Store
from openseer_text.rendering import TextCodec, open_codec

log = logging.getLogger(__name__)

GLANCE_SECONDS = 0.2
"""How old what is known of the fleet may be before it is read anew."""
KNOWN_BATCHES = 256
"""Batches whose parameters are kept parsed."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one job accepts. `queued`: requests that may wait; `upload_bytes`, `line_bytes`: of one call, one group;
    `body_bytes`: of a JSON body with groups."""

    queued: int = 200_000
    upload_bytes: int = 256 * 2**20
    line_bytes: int = 16 * 2**20
    body_bytes: int = 64 * 2**20


@dataclass(slots=True)
class FleetSnapshot:
    """The fleet as it was a moment ago. `reported`: what one request may have, as its workers say."""

    at: float = float("-inf")
    fleet_spec: FleetSpec = field(default_factory=FleetSpec)
    workers: list[WorkerStatus] = field(default_factory=list[WorkerStatus])
    now: float = 0.0
    reported: ModelLimits = field(default_factory=ModelLimits)


class JobContext:
    """What requests of one job work with. `run_code`: code of the model's own tokenizer may run in this process.

    `on_codec`: called, in a thread, once the tokenizer is loaded. `rows`: who finds its routed experts, None where none
    are captured. `model_names`: what the model may be called by, its path first.
    """

    def __init__(
        self,
        job: RolloutJob,
        store: Store,
        limits: UploadLimits | None = None,
        *,
        run_code: bool = False,
        on_codec: Callable[[], None] = lambda: None,
        rows: RowSource | None = None,
    ) -> None:
        self.rows = rows
        self.job = job
        self.store = store
        self.limits = limits or UploadLimits()
        model = job.spec.model
        self.model_names = tuple(dict.fromkeys((model.path, *model.served_names, job.name)))
        self._run_code = run_code
        self._on_codec = on_codec
        self.placement = Placement.of(job.spec.rollout, job.spec.workers)
        self._codec: asyncio.Future[TextCodec | ModelError] | None = None
        self._specs: dict[int, BatchSpec] = {}
        self._snapshot = FleetSnapshot()
        self._hearing = Hearing()
        self.drafts = DraftsOfBatches()
        self.computed = limits_of_manifest(job.spec.model)
        """What one request may have, as long as no worker has reported it."""
        self.closing: list[Callable[[], Awaitable[None]]] = []
        """Called by `close` before the store is closed: what others keep for this job ends here."""
        self.calls: Counter[int] = Counter()
        """Answered calls of this job, by HTTP status."""
        self.counts: dict[str, int] = dict.fromkeys(
            ("compatible_requests", "compatible_grouped", "compatible_recognised"), 0
        )

    def renew(self, job: RolloutJob) -> None:
        """Takes a manifest that has changed, in its number of workers for instance."""
        self.job = job

    async def codec(self) -> TextCodec:
        """The model's tokenizer, loaded once, in a thread. Raises ModelError where this process cannot have it."""
        if self._codec is None:
            self._codec = asyncio.ensure_future(
                asyncio.to_thread(_open_codec, self.job, self._run_code, self._on_codec)
            )
        found = await asyncio.shield(self._codec)
        if isinstance(found, ModelError):
            raise ModelError(f"{found}. Without the model's tokenizer, send prompt_token_ids")
        return found

    def known_codec(self) -> TextCodec | None:
        """The tokenizer if it is there already: results are read as text only then."""
        if self._codec is None or not self._codec.done():
            return None
        found = self._codec.result()
        return found if not isinstance(found, ModelError) else None

    def spec_of(self, record: BatchRecord) -> BatchSpec:
        """The spec with which the trainer opened a batch."""
        known = self._specs.get(record.number)
        if known is None:
            if len(self._specs) >= KNOWN_BATCHES:
                self._specs.pop(next(iter(self._specs)))
            known = self._specs[record.number] = BatchSpec.model_validate_json(record.spec)
        return known

    def sampling_of(self, spec: BatchSpec) -> Sampling:
        """How tokens of a batch are drawn."""
        return spec.sampling or self.job.spec.sampling

    async def snapshot(self, *, fresh: bool = False) -> FleetSnapshot:
        """Fleet spec and workers, at most GLANCE_SECONDS old (`fresh`: read now)."""
        if fresh or time.monotonic() - self._snapshot.at > GLANCE_SECONDS:
            fleet_spec, workers, now = await asyncio.gather(
                self.store.fleet_spec(), self.store.workers(), self.store.now()
            )
            self.note_answer()
            heard = self._hearing.heard(workers, now)
            reported = reported_limits(heard, now)
            self._snapshot = FleetSnapshot(time.monotonic(), fleet_spec, heard, now, reported)
        return self._snapshot

    async def limits_of_requests(self) -> ModelLimits:
        """What one request may have: as the workers report it, before that as it was computed."""
        return (await self.snapshot()).reported.else_by(self.computed)

    def note_answer(self) -> None:
        """The store has just answered: while it does, a worker that says nothing is silent."""
        self._hearing.answered(time.monotonic(), self.store.epoch)

    async def close(self) -> None:
        """Runs the callbacks of `closing` and closes the store."""
        for close in self.closing:
            await close()
        await self.store.close()

    @property
    def gpus_per_worker(self) -> int:
        """GPUs of one worker, for GPU time."""
        parallelism = self.job.spec.workers.parallelism
        return parallelism.gpus

    def worker_names(self) -> list[str]:
        """Names of the workers that the manifest asks for; of a job that scales itself, any number will do."""
        if self.job.spec.workers.autoscale is not None:
            return []
        return [worker_name(index) for index in range(self.job.spec.workers.replicas)]


def _open_codec(job: RolloutJob, run_code: bool, on_codec: Callable[[], None]) -> TextCodec | ModelError:
    def say(message: str) -> None:
        log.info("%s/%s: %s", job.namespace, job.name, message)

    try:
        codec = open_codec(job.spec.model, say, run_code=run_code)
    except ModelError as error:
        log.warning("%s/%s: %s", job.namespace, job.name, error)
        return error
    on_codec()
    return codec


@dataclass(frozen=True, slots=True)
class UnopenedJob:
    """A job that should be open and is not, with the reason in words."""

    namespace: str
    name: str
    mode: JobMode
    reason: str


class JobDirectory(Protocol):
    """Finds the jobs that are served here."""

    async def find(self, namespace: str, name: str) -> JobContext | None:
        """The job's context; None where no such job serves."""
        ...

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        """The same for the page, which shows jobs that serve nobody, too."""
        ...

    def open_jobs(self) -> list[JobContext]:
        """Those that are open here."""
        ...

    def unopened(self) -> list[UnopenedJob]:
        """Those that could not be opened when it was last tried."""
        ...


class OneJob:
    """The directory of a server on one machine."""

    def __init__(self, context: JobContext) -> None:
        self.context = context

    async def find(self, namespace: str, name: str) -> JobContext | None:
        """The one job there is, whatever it is called."""
        return self.context

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        """The one job there is."""
        return self.context

    def open_jobs(self) -> list[JobContext]:
        """The one job there is."""
        return [self.context]

    def unopened(self) -> list[UnopenedJob]:
        """None: the server stands with its job."""
        return []
