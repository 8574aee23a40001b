"""Reads the stores of jobs that run: their counts and their workers' reports. No reconcile step waits for a store."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from openseer_core.errors import OpenseerError, StoreLoadingError
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import url_in, url_reference
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import StoreView, WorkerReport
from openseer_core.queue.messages import BatchProgress
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.loaded import why_not_loaded
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_operator.kube.api import Api
from openseer_operator.objects.reading import JobKey, JobRecord
from openseer_store.connect import open_store
from openseer_store.port import Store

CONNECT_SECONDS = 2.0
"""Longest wait for a store to be reached."""
READ_SECONDS = 2.0
"""Longest wait for one reading."""
READ_EVERY_SECONDS = 1.0
"""Between two readings of one store, while there are few."""
READS_PER_SECOND = 200.0
"""Most readings a second, over all stores."""
READS_AT_ONCE = 32
"""Stores that are read at the same time; the time limit of a reading begins with the reading."""
RETRY_SECONDS = 5.0
"""Longest pause after a reading that failed; it grows up to that, with many stores to three times the usual pause."""
STALE_SECONDS = 5.0
"""An older view is none; with so many stores that readings come seldom, three readings' time."""
REPORT_SECONDS = 30.0
"""A heartbeat that is older counts no more."""
RATE_SECONDS = 30.0
"""Tokens per second are taken over so long."""
PURGE_SECONDS = 10.0
"""Longest time for deleting a job's keys."""

log = logging.getLogger(__name__)

AnnounceEvent = Callable[[JobRecord, Announce], Awaitable[None]]
"""Makes an event of a job."""


@dataclass(slots=True)
class PolledStore:
    """One store that is read. `watched_since`, `read_at`: from when on, and when last (loop's clock).

    `inflight`: requests that its workers run; `batch_tokens`: tokens of each batch; `past_tokens`: those of batches
    that were read and are no longer there. `last_transaction`: the latest weights transaction that had ended when the
    fleet spec was read; None before that.
    """

    record: JobRecord
    task: asyncio.Task[None] | None = None
    store: Store | None = None
    view: StoreView | None = None
    watched_since: float = 0.0
    read_at: float = 0.0
    inflight: int = 0
    actionable_state: object = None
    failures: int = 0
    loads: bool = False
    batch_tokens: Mapping[int, int] = field(default_factory=dict[int, int])
    past_tokens: int = 0
    last_transaction: int | None = None
    token_counts: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])


class StorePoller:
    """`changed`: called with a job's key when its store holds something that may call for action. `announce`: makes an
    event of weights that were published, or not; no action follows from that."""

    def __init__(self, api: Api, changed: Callable[[JobKey], None], announce: AnnounceEvent | None = None) -> None:
        self._api = api
        self._changed = changed
        self._announce = announce
        self._polled: dict[JobKey, PolledStore] = {}
        self._gate = asyncio.Semaphore(READS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._polled)

    # ---- for a reconcile step

    def watch(self, record: JobRecord) -> None:
        """Reads the job's store from now on; returns at once."""
        known = self._polled.get(record.key)
        if known is not None and known.record.uid == record.uid:
            known.record = record
            return
        if known is not None:
            self.unwatch(record.key)
        polled = self._polled[record.key] = PolledStore(record, watched_since=_now())
        polled.task = asyncio.create_task(self._follow(polled), name=f"store of {record.key[0]}/{record.key[1]}")

    def unwatch(self, key: JobKey) -> None:
        """Reads it no longer."""
        polled = self._polled.pop(key, None)
        if polled is not None and polled.task is not None:
            polled.task.cancel()

    def view(self, key: JobKey) -> StoreView | None:
        """The newest view; None when there is none, or only an old one."""
        polled = self._polled.get(key)
        return polled.view if polled is not None and not self._stale(polled) else None

    def loads(self, key: JobKey) -> bool:
        """Whether the store has said at the last reading that it loads its data."""
        polled = self._polled.get(key)
        return polled is not None and polled.loads

    def settling(self, key: JobKey) -> bool:
        """Whether it is too early to say that the store does not answer."""
        polled = self._polled.get(key)
        return polled is not None and polled.view is None and _now() - polled.watched_since < self._stale_after

    def inflight(self, key: JobKey) -> int:
        """Requests that workers ran when the store was last read."""
        polled = self._polled.get(key)
        return polled.inflight if polled is not None else 0

    def tokens(self, key: JobKey) -> int:
        """Generated since the store was first read, in batches that were there then or came later: it only grows."""
        polled = self._polled.get(key)
        return polled.past_tokens + sum(polled.batch_tokens.values()) if polled is not None else 0

    def tokens_per_second(self, key: JobKey) -> float | None:
        """Of late; None while too little is known."""
        polled = self._polled.get(key)
        if polled is None or len(polled.token_counts) < 2:
            return None
        (start, first), (end, last) = polled.token_counts[0], polled.token_counts[-1]
        return (last - first) / (end - start) if end > start else None

    async def purge(self, key: JobKey) -> None:
        """Deletes the job's keys. Raises StoreUnavailableError when the store does not answer."""
        polled = self._polled[key]
        async with asyncio.timeout(PURGE_SECONDS):
            store = polled.store or await self._open(polled)
            await store.purge(forget=True)

    async def close(self) -> None:
        """Stops reading all of them."""
        tasks = [polled.task for polled in self._polled.values() if polled.task is not None]
        for key in list(self._polled):
            self.unwatch(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- reading

    @property
    def interval(self) -> float:
        """Seconds between two readings of one store."""
        return max(READ_EVERY_SECONDS, len(self._polled) / READS_PER_SECOND)

    def _stale(self, polled: PolledStore) -> bool:
        return _now() - polled.read_at > self._stale_after

    @property
    def _stale_after(self) -> float:
        return max(STALE_SECONDS, 3 * self.interval)

    async def _follow(self, polled: PolledStore) -> None:
        try:
            while True:
                async with self._gate:
                    await self._poll(polled)
                pause = min(self.interval * 2.0 ** min(polled.failures, 10), max(RETRY_SECONDS, 3 * self.interval))
                await asyncio.sleep(pause)
        finally:
            if polled.store is not None:
                await polled.store.close()

    async def _poll(self, polled: PolledStore) -> None:
        """One reading; a failure is logged when it begins, and reported when the last view has become too old."""
        key = polled.record.key
        try:
            if polled.store is None:
                async with asyncio.timeout(CONNECT_SECONDS + READ_SECONDS):
                    polled.store = await self._open(polled)
            async with asyncio.timeout(READ_SECONDS):
                view = await self._read(polled, polled.store)
        except Exception as error:  # a heartbeat that cannot be parsed must not end the reading either
            if not polled.failures:
                known = isinstance(error, (OpenseerError, TimeoutError, OSError))
                log.info("%s/%s: store: %s", *key, str(error) or "no answer in time", exc_info=not known)
            polled.failures += 1
            polled.loads = isinstance(error, StoreLoadingError)
            silence = "loads" if polled.loads else None
            state: object = silence if self._stale(polled) else polled.actionable_state
        else:
            polled.failures, polled.loads, polled.view, polled.read_at = 0, False, view, _now()
            state = _actionable_state(polled.record.job, view)
        if state != polled.actionable_state:
            polled.actionable_state = state
            self._changed(key)

    async def _read(self, polled: PolledStore, store: Store) -> StoreView:
        """One call after the other: they share one connection, and there may be a thousand stores."""
        job = polled.record.job
        serves = job is not None and job.spec.mode == "serve"
        batches = await _open_batches(store) if serves else {BATCH_JOB_BATCH: await store.progress(BATCH_JOB_BATCH)}
        fleet_spec = await store.fleet_spec() if serves else FleetSpec()
        await self._announce_weights(polled, fleet_spec)
        workers = await store.workers()
        fresh = await store.now() - REPORT_SECONDS if workers else 0.0
        polled.inflight = sum(worker.inflight for worker in workers)
        polled.past_tokens += sum(tokens for number, tokens in polled.batch_tokens.items() if number not in batches)
        polled.batch_tokens = {number: progress.tokens for number, progress in batches.items()}
        polled.token_counts.append((_now(), self.tokens(polled.record.key)))
        while polled.token_counts[-1][0] - polled.token_counts[0][0] > RATE_SECONDS and len(polled.token_counts) > 2:
            polled.token_counts.popleft()
        reports = reports_of((worker for worker in workers if worker.seen_at >= fresh), fleet_spec)
        return StoreView(total_progress(batches.values()), reports, fleet_spec.rest == "stop", await store.memory())

    async def _announce_weights(self, polled: PolledStore, fleet_spec: FleetSpec) -> None:
        """An event for a transaction that has ended since the last reading; what ended before the first is old."""
        transaction = fleet_spec.transaction
        ended = transaction.id if transaction is not None and not transaction.active else 0
        is_new = polled.last_transaction is not None and ended > polled.last_transaction
        polled.last_transaction = max(ended, polled.last_transaction or 0)
        if is_new and transaction is not None and self._announce is not None:
            await self._announce(polled.record, weights_event(transaction))

    async def _open(self, polled: PolledStore) -> Store:
        job = polled.record.job
        assert job is not None
        url = await self._url(job)
        return await open_store(url, job.name, job.namespace, retry_seconds=CONNECT_SECONDS, loading_seconds=0.0)

    async def _url(self, job: RolloutJob) -> str:
        """Raises InputError when the Secret has none."""
        reference = url_reference(job)
        if reference is None:
            return job.spec.store.url or ""
        return url_in((await self._api.get("Secret", job.namespace, reference.name)).get("data") or {}, reference)


def weights_event(transaction: WeightsTransaction) -> Announce:
    """How a weights transaction ended, for people."""
    seconds = (transaction.finished_at or transaction.started_at) - transaction.started_at
    detail = f": {transaction.message}" if transaction.message else ""
    if transaction.phase == "done":
        return Announce(
            False, "WeightsPublished", f"weights {transaction.publish.version} after {seconds:.1f} s{detail}"
        )
    message = (
        f"weights {transaction.publish.version} were not published, the fleet keeps {transaction.previous}{detail}"
    )
    return Announce(True, "WeightsFailed", message)


async def _open_batches(store: Store) -> dict[int, BatchProgress]:
    """Of a trainer's batches, those whose data are there."""
    return {batch.number: batch.progress for batch in await store.batches() if not batch.forgotten}


def total_progress(batches: Collection[BatchProgress]) -> BatchProgress:
    """Several batches as one; it has all its groups when each of them has."""
    return BatchProgress(
        groups=sum(progress.groups for progress in batches),
        requests=sum(progress.requests for progress in batches),
        ok=sum(progress.ok for progress in batches),
        aborted=sum(progress.aborted for progress in batches),
        infra_failed=sum(progress.infra_failed for progress in batches),
        carried_over=sum(progress.carried_over for progress in batches),
        tokens=sum(progress.tokens for progress in batches),
        sealed=bool(batches) and all(progress.sealed for progress in batches),
    )


def reports_of(workers: Iterable[WorkerStatus], fleet_spec: FleetSpec) -> dict[str, WorkerReport]:
    """The reports of workers, by the uid of their pods; a worker that runs in no pod is left out."""
    reports: dict[str, WorkerReport] = {}
    for worker in workers:
        metrics, weights = worker.heartbeat.metrics, worker.heartbeat.weights
        number = worker.name.removeprefix("worker-")
        if metrics.pod and number.isdecimal():
            reports[metrics.pod] = WorkerReport(
                int(number),
                metrics.pod,
                worker.heartbeat.state,
                metrics.context_tokens,
                metrics.sick,
                why_not_loaded(fleet_spec, weights) if weights is not None else "",
            )
    return reports


def _actionable_state(job: RolloutJob | None, view: StoreView) -> object:
    """What of a view may call for action: equal for two views that do not differ in it."""
    counts: BatchProgress = view.progress
    left = counts.requests - counts.closed
    fleet = job.spec.workers.replicas if job is not None else 0
    full = view.memory.is_nearly_full
    workers = frozenset(replace(report, held_tokens=0) for report in view.reports.values())
    return counts.sealed, min(left, fleet) if counts.sealed else None, counts.complete, view.released, workers, full


def _now() -> float:
    return asyncio.get_running_loop().time()
