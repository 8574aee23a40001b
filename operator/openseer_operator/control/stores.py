"""Reads the stores of the jobs that run: their counts, and what their workers say. No reconcile waits for a store."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import url_in, url_reference
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import StoreView, WorkerReport
from openseer_core.queue.messages import BatchProgress
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_operator.kube.api import Api
from openseer_operator.objects.reading import JobRecord, Key
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
"""Stores that are read at the same time; a reading's time begins when its turn has come."""
RETRY_SECONDS = 5.0
"""Longest pause after a reading that failed; it grows up to that, with many stores to three times the usual pause."""
STALE_SECONDS = 5.0
"""An older view is none; with so many stores that readings come seldom, three readings' time."""
FRESH_SECONDS = 30.0
"""A worker that said nothing for longer says nothing."""
RATE_SECONDS = 30.0
"""Tokens per second are taken over so long."""
PURGE_SECONDS = 10.0
"""Longest time for deleting a job's keys."""
BATCH = 0
"""The only batch of a job that has a driver; a trainer's batches have numbers of their own."""

log = logging.getLogger(__name__)

Telling = Callable[[JobRecord, Announce], Awaitable[None]]
"""Makes an event of a job."""


@dataclass(slots=True)
class Watched:
    """One store that is read. `since`: from when on; `at`: when last (loop's clock); `inflight`: held by workers.

    `spent`: tokens of each batch; `gone`: those of batches that were read and are no longer there. `published`: the
    latest weights transaction that had ended when its orders were read; None before that.
    """

    record: JobRecord
    task: asyncio.Task[None] | None = None
    store: Store | None = None
    view: StoreView | None = None
    since: float = 0.0
    at: float = 0.0
    inflight: int = 0
    said: object = None
    failures: int = 0
    spent: Mapping[int, int] = field(default_factory=dict[int, int])
    gone: int = 0
    published: int | None = None
    counts: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])


class Stores:
    """`changed`: called with a job's key when its store says something that may call for action. `announce`: told of
    weights that were published, or not; nobody has to act upon that."""

    def __init__(self, api: Api, changed: Callable[[Key], None], announce: Telling | None = None) -> None:
        self._api = api
        self._changed = changed
        self._announce = announce
        self._watched: dict[Key, Watched] = {}
        self._gate = asyncio.Semaphore(READS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._watched)

    # ---- what a reconcile asks

    def watch(self, record: JobRecord) -> None:
        """Reads the job's store from now on; returns at once."""
        known = self._watched.get(record.key)
        if known is not None and known.record.uid == record.uid:
            known.record = record
            return
        if known is not None:
            self.leave(record.key)
        one = self._watched[record.key] = Watched(record, since=_now())
        one.task = asyncio.create_task(self._follow(one), name=f"store of {record.key[0]}/{record.key[1]}")

    def leave(self, key: Key) -> None:
        """Reads it no longer."""
        one = self._watched.pop(key, None)
        if one is not None and one.task is not None:
            one.task.cancel()

    def view(self, key: Key) -> StoreView | None:
        """The newest view; None when there is none, or only an old one."""
        one = self._watched.get(key)
        return one.view if one is not None and not self._stale(one) else None

    def settling(self, key: Key) -> bool:
        """Whether it is too early to say that the store does not answer."""
        one = self._watched.get(key)
        return one is not None and one.view is None and _now() - one.since < self._limit

    def inflight(self, key: Key) -> int:
        """Requests that workers held when the store was last read."""
        one = self._watched.get(key)
        return one.inflight if one is not None else 0

    def tokens(self, key: Key) -> int:
        """Generated since the store was first read, in batches that were there then or came later: it only grows."""
        one = self._watched.get(key)
        return one.gone + sum(one.spent.values()) if one is not None else 0

    def tokens_per_second(self, key: Key) -> float | None:
        """Of late; None while too little is known."""
        one = self._watched.get(key)
        if one is None or len(one.counts) < 2:
            return None
        (start, first), (end, last) = one.counts[0], one.counts[-1]
        return (last - first) / (end - start) if end > start else None

    async def purge(self, key: Key) -> None:
        """Deletes the job's keys. Raises StoreUnavailableError when the store is not there."""
        one = self._watched[key]
        async with asyncio.timeout(PURGE_SECONDS):
            store = one.store or await self._open(one)
            await store.purge(forget=True)

    async def close(self) -> None:
        """Leaves all of them."""
        tasks = [one.task for one in self._watched.values() if one.task is not None]
        for key in list(self._watched):
            self.leave(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- reading

    @property
    def interval(self) -> float:
        """Seconds between two readings of one store."""
        return max(READ_EVERY_SECONDS, len(self._watched) / READS_PER_SECOND)

    def _stale(self, one: Watched) -> bool:
        return _now() - one.at > self._limit

    @property
    def _limit(self) -> float:
        return max(STALE_SECONDS, 3 * self.interval)

    async def _follow(self, one: Watched) -> None:
        try:
            while True:
                async with self._gate:
                    await self._once(one)
                pause = min(self.interval * 2.0 ** min(one.failures, 10), max(RETRY_SECONDS, 3 * self.interval))
                await asyncio.sleep(pause)
        finally:
            if one.store is not None:
                await one.store.close()

    async def _once(self, one: Watched) -> None:
        """One reading; a failure is logged when it begins, and told when the last view has become too old."""
        key = one.record.key
        try:
            if one.store is None:
                async with asyncio.timeout(CONNECT_SECONDS + READ_SECONDS):
                    one.store = await self._open(one)
            async with asyncio.timeout(READ_SECONDS):
                view = await self._read(one, one.store)
        except Exception as error:  # words that nobody understands must not end the reading either
            if not one.failures:
                known = isinstance(error, (OpenseerError, TimeoutError, OSError))
                log.info("%s/%s: store: %s", *key, str(error) or "no answer in time", exc_info=not known)
            one.failures += 1
            said: object = None if self._stale(one) else one.said
        else:
            one.failures, one.view, one.at = 0, view, _now()
            said = _said(one.record.job, view)
        if said != one.said:
            one.said = said
            self._changed(key)

    async def _read(self, one: Watched, store: Store) -> StoreView:
        """One call after the other: they share one connection, and there may be a thousand stores."""
        job = one.record.job
        serves = job is not None and job.spec.mode == "serve"
        batches = await _open_batches(store) if serves else {BATCH: await store.progress(BATCH)}
        orders = await store.fleet_spec() if serves else FleetSpec()
        await self._tell_weights(one, orders)
        workers = await store.workers()
        fresh = await store.now() - FRESH_SECONDS if workers else 0.0
        one.inflight = sum(worker.inflight for worker in workers)
        one.gone += sum(tokens for number, tokens in one.spent.items() if number not in batches)
        one.spent = {number: progress.tokens for number, progress in batches.items()}
        one.counts.append((_now(), self.tokens(one.record.key)))
        while one.counts[-1][0] - one.counts[0][0] > RATE_SECONDS and len(one.counts) > 2:
            one.counts.popleft()
        reports = reports_of(worker for worker in workers if worker.seen_at >= fresh)
        return StoreView(total(batches.values()), reports, orders.rest == "stop")

    async def _tell_weights(self, one: Watched, orders: FleetSpec) -> None:
        """An event for a transaction that has ended since the last reading; what ended before the first is old."""
        told = orders.transaction
        ended = told.id if told is not None and not told.active else 0
        news = one.published is not None and ended > one.published
        one.published = max(ended, one.published or 0)
        if news and told is not None and self._announce is not None:
            await self._announce(one.record, weights_event(told))

    async def _open(self, one: Watched) -> Store:
        job = one.record.job
        assert job is not None
        return await open_store(await self._url(job), job.name, job.namespace, retry_seconds=CONNECT_SECONDS)

    async def _url(self, job: RolloutJob) -> str:
        """Raises InputError when the Secret does not say."""
        reference = url_reference(job)
        if reference is None:
            return job.spec.store.url or ""
        return url_in((await self._api.get("Secret", job.namespace, reference.name)).get("data") or {}, reference)


def weights_event(told: WeightsTransaction) -> Announce:
    """How a weights transaction ended, for people."""
    seconds = (told.finished_at or told.started_at) - told.started_at
    more = f": {told.message}" if told.message else ""
    if told.phase == "done":
        return Announce(False, "WeightsPublished", f"weights {told.publish.version} after {seconds:.1f} s{more}")
    words = f"weights {told.publish.version} were not published, the fleet keeps {told.previous}{more}"
    return Announce(True, "WeightsFailed", words)


async def _open_batches(store: Store) -> dict[int, BatchProgress]:
    """Of a trainer's batches, those whose data are there."""
    return {batch.number: batch.progress for batch in await store.batches() if not batch.forgotten}


def total(batches: Collection[BatchProgress]) -> BatchProgress:
    """Several batches as one; it has all its groups when each of them has."""
    return BatchProgress(
        groups=sum(one.groups for one in batches),
        requests=sum(one.requests for one in batches),
        ok=sum(one.ok for one in batches),
        aborted=sum(one.aborted for one in batches),
        infra_failed=sum(one.infra_failed for one in batches),
        carried_over=sum(one.carried_over for one in batches),
        tokens=sum(one.tokens for one in batches),
        sealed=bool(batches) and all(one.sealed for one in batches),
    )


def reports_of(workers: Iterable[WorkerStatus]) -> dict[str, WorkerReport]:
    """What workers say, by the uid of the pod that says so; a worker that runs in no pod is left out."""
    reports: dict[str, WorkerReport] = {}
    for worker in workers:
        figures = worker.heartbeat.metrics
        pod, number = str(figures.get("pod", "")), worker.name.removeprefix("worker-")
        if pod and number.isdecimal():
            held, sick = figures.get("held_tokens", 0), str(figures.get("sick", ""))
            held_tokens = int(held) if isinstance(held, (int, float)) else 0
            reports[pod] = WorkerReport(int(number), pod, worker.heartbeat.state, held_tokens, sick)
    return reports


def _said(job: RolloutJob | None, view: StoreView) -> object:
    """What of a view may call for action: equal for two views that do not differ in it."""
    counts: BatchProgress = view.progress
    left = counts.requests - counts.closed
    fleet = job.spec.workers.replicas if job is not None else 0
    workers = frozenset(replace(report, held_tokens=0) for report in view.reports.values())
    return counts.sealed, min(left, fleet) if counts.sealed else None, counts.complete, view.released, workers


def _now() -> float:
    return asyncio.get_running_loop().time()
