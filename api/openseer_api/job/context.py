"""The context of a served job: its manifest, its store, and cached values derived from them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from openseer_api.job.drafting import DraftsOfBatches
from openseer_api.job.rows import RowSource
from openseer_api.job.traces import JobTraces
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
from openseer_process.span_export import SpanTaker
from openseer_store.port import Store
from openseer_text.rendering import TextCodec, open_codec

log = logging.getLogger(__name__)

GLANCE_SECONDS = 0.2
"""Cache TTL of the fleet's snapshot, in seconds."""
KNOWN_BATCHES = 256
"""Limit of batches whose parsed spec is cached."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits of a job's uploads. `queued`: number of waiting requests. In bytes: `upload_bytes`: one upload of lines;
    `line_bytes`: one line, which is a group; `body_bytes`: a JSON body with groups."""

    queued: int = 200_000
    upload_bytes: int = 256 * 2**20
    line_bytes: int = 16 * 2**20
    body_bytes: int = 64 * 2**20


@dataclass(slots=True)
class FleetSnapshot:
    """The state of the fleet at one time. `at`: monotonic time of the read; `now`: seconds of the store's clock;
    `reported`: the limits of one request, as the workers report them."""

    at: float = float("-inf")
    fleet_spec: FleetSpec = field(default_factory=FleetSpec)
    workers: list[WorkerStatus] = field(default_factory=list[WorkerStatus])
    now: float = 0.0
    reported: ModelLimits = field(default_factory=ModelLimits)


class JobContext:
    """The objects that calls of one job share. `run_code`: the tokenizer may execute code from the model's folder.

    `on_codec`: called in a thread once the tokenizer is loaded. `rows`: source of the job's routed experts, None if it
    captures none. `spans`: receives the spans of its requests, batches and weights; None without traces.
    `model_names`: the names of the model that calls may use, its path first.
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
        spans: SpanTaker | None = None,
    ) -> None:
        self.rows = rows
        self.traces = JobTraces(job, spans) if spans is not None else None
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
        """Limits of one request, computed from the manifest; used until a worker has reported its limits."""
        self.closing: list[Callable[[], Awaitable[None]]] = []
        """Callbacks that `close` runs before it closes the store, for objects that belong to this job."""
        self.calls: Counter[int] = Counter()
        """Number of responses to calls of this job, by HTTP status."""
        self.counts: dict[str, int] = dict.fromkeys(
            ("compatible_requests", "compatible_grouped", "compatible_recognised"), 0
        )

    def renew(self, job: RolloutJob) -> None:
        """Replaces the manifest by a changed one, for example with another number of workers."""
        self.job = job

    async def codec(self) -> TextCodec:
        """Returns the model's tokenizer; the first call loads it in a thread.
        Raises ModelError if it cannot be loaded."""
        if self._codec is None:
            self._codec = asyncio.ensure_future(
                asyncio.to_thread(_open_codec, self.job, self._run_code, self._on_codec)
            )
        found = await asyncio.shield(self._codec)
        if isinstance(found, ModelError):
            raise ModelError(f"{found}. Without the model's tokenizer, send prompt_token_ids")
        return found

    def known_codec(self) -> TextCodec | None:
        """Returns the tokenizer if it is loaded, else None: results contain text only if it is."""
        if self._codec is None or not self._codec.done():
            return None
        found = self._codec.result()
        return found if not isinstance(found, ModelError) else None

    def spec_of(self, record: BatchRecord) -> BatchSpec:
        """Returns the spec with which a batch was opened."""
        known = self._specs.get(record.number)
        if known is None:
            if len(self._specs) >= KNOWN_BATCHES:
                self._specs.pop(next(iter(self._specs)))
            known = self._specs[record.number] = BatchSpec.model_validate_json(record.spec)
        return known

    def sampling_of(self, spec: BatchSpec) -> Sampling:
        """Returns the sampling of a batch: its own, else the job's."""
        return spec.sampling or self.job.spec.sampling

    async def snapshot(self, *, fresh: bool = False) -> FleetSnapshot:
        """Returns the fleet spec and the workers, at most GLANCE_SECONDS old. `fresh`: reads them now."""
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
        """Returns the limits of one request: as the workers report them or, before that, from the manifest."""
        return (await self.snapshot()).reported.else_by(self.computed)

    def note_answer(self) -> None:
        """Records that the store has responded: only time in which it responds counts as a worker's silence."""
        self._hearing.answered(time.monotonic(), self.store.epoch)

    async def close(self) -> None:
        """Runs the callbacks of `closing` and closes the store."""
        for close in self.closing:
            await close()
        await self.store.close()

    @property
    def gpus_per_worker(self) -> int:
        """Number of GPUs of one worker."""
        parallelism = self.job.spec.workers.parallelism
        return parallelism.gpus

    def worker_names(self) -> list[str]:
        """Returns the names of the workers that the manifest requires;
        [] with autoscaling, where their number varies."""
        if self.job.spec.workers.autoscale is not None:
            return []
        return [worker_name(index) for index in range(self.job.spec.workers.replicas)]


def _open_codec(job: RolloutJob, run_code: bool, on_codec: Callable[[], None]) -> TextCodec | ModelError:
    def warn(message: str) -> None:
        log.info("%s/%s: %s", job.namespace, job.name, message)

    try:
        codec = open_codec(job.spec.model, warn, run_code=run_code)
    except ModelError as error:
        log.warning("%s/%s: %s", job.namespace, job.name, error)
        return error
    on_codec()
    return codec


@dataclass(frozen=True, slots=True)
class UnopenedJob:
    """A job that should be open and is not. `reason`: as text."""

    namespace: str
    name: str
    mode: JobMode
    reason: str


class JobDirectory(Protocol):
    """Finds the jobs that are served here."""

    async def find(self, namespace: str, name: str) -> JobContext | None:
        """Returns the job's context; None if no such job serves."""
        ...

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        """Returns the context of a job for the page, which also shows jobs of mode batch; None if there is none."""
        ...

    def open_jobs(self) -> list[JobContext]:
        """Returns the jobs that are open in this process."""
        ...

    def unopened(self) -> list[UnopenedJob]:
        """Returns the jobs that should be open and are not."""
        ...


class OneJob:
    """The directory of a server on one machine, which has one job."""

    def __init__(self, context: JobContext) -> None:
        self.context = context

    async def find(self, namespace: str, name: str) -> JobContext | None:
        """Returns the one job, whatever the name is."""
        return self.context

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        """Returns the one job, whatever the name is."""
        return self.context

    def open_jobs(self) -> list[JobContext]:
        """Returns the one job."""
        return [self.context]

    def unopened(self) -> list[UnopenedJob]:
        """Returns []: the server runs only while its job is open."""
        return []
