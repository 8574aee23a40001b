"""Reads the stores of jobs that run: their counts and their workers' reports. No reconcile step waits for a store."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from openseer_core.errors import (
    InputError,
    OpenseerError,
    StoreError,
    StoreForbiddenError,
    StoreLoadingError,
    StoreUnavailableError,
)
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.manifest.store_url import store_name
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import GpuSeconds, StoreProblem, StoreView
from openseer_core.queue.store_memory import StoreMemory
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import WorkerState
from openseer_operator.control.counters import BatchTokens
from openseer_operator.control.metrics import StoreHealth
from openseer_operator.control.read_slots import ReadSlots
from openseer_operator.control.store_views import (
    actionable_state,
    open_batches,
    reports_of,
    total_progress,
    weights_event,
)
from openseer_operator.kube.api import FORBIDDEN, Api, KubeApiError
from openseer_operator.objects.reading import JobKey, JobRecord
from openseer_process.store_access import StoreAccess
from openseer_store.connect import open_store
from openseer_store.port import Store
from openseer_store.reply_limit import ReplyLimit

CONNECT_SECONDS = 2.0
"""Longest wait for a store to be reached."""
READ_SECONDS = 2.0
"""Longest wait for one reading."""
READ_EVERY_SECONDS = 1.0
"""Between two readings of one store, while there are few."""
READS_PER_SECOND = 200.0
"""Most readings a second, over all stores."""
RETRY_SECONDS = 5.0
"""Longest pause after a reading that failed; it grows up to that, with many stores to three times the usual pause. The
time limit of a reading begins with the reading."""
SILENT_SECONDS = 60.0
"""Longest such pause of a store that never answered: a tenth of the time that it is known for, up to so much."""
REOPEN_FAILURES = 3
"""After so many failed readings in a row a store is looked for anew: its Secret may hold another password by then, or
another place. After a refusal that is no outage it is at once."""
FORBIDDEN_SECONDS = 30.0
"""Pause after a store was found that only a person can change."""
STALE_SECONDS = 5.0
"""An older view is none; with so many stores that readings come seldom, three readings' time."""
REPORT_SECONDS = 30.0
"""A heartbeat that is older counts no more."""
RATE_SECONDS = 30.0
"""Tokens per second are taken over so long."""
LEAST_BUSY_SECONDS = 10.0
"""The speed of a worker is known once workers have been busy for so long within that time, all of them together."""
REPLY_LIMIT = ReplyLimit(bytes=8 * 2**20, parts=2**16)
"""Of one answer: the heartbeats of MOST_WORKERS with 2 KiB each, or 1,500 open batches. It does not follow the job's
manifest: rows of workers that were killed stay when a fleet has become small, and a manifest may say any number."""
PURGE_SECONDS = 10.0
"""Longest time for deleting a job's keys."""

log = logging.getLogger(__name__)

AnnounceEvent = Callable[[JobRecord, Announce], Awaitable[None]]
"""Makes an event of a job."""


@dataclass(slots=True)
class PolledStore:
    """One store that is read. `watched_since`, `read_at`: from when on, and when last (loop's clock).

    `tokens`: generated so far; `inflight`: requests that its workers run. `last_transaction`: the latest weights
    transaction that had ended when the fleet spec was read; None before that. `read_seconds`, `publishing_seconds`: as
    in StoreHealth. `token_counts`: when, and how many tokens there were, of late; `busy_seconds`: at the same times,
    how long workers were busy so far, all of them together.
    """

    record: JobRecord
    tokens: BatchTokens
    task: asyncio.Task[None] | None = None
    store: Store | None = None
    view: StoreView | None = None
    watched_since: float = 0.0
    read_at: float = 0.0
    inflight: int = 0
    actionable_state: object = None
    failures: int = 0
    loads: bool = False
    problem: StoreProblem | None = None
    last_transaction: int | None = None
    read_seconds: float = 0.0
    publishing_seconds: float = 0.0
    token_counts: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    busy_seconds: deque[float] = field(default_factory=deque[float])


class StorePoller:
    """`changed`: called with a job's key when its store holds something that may call for action. `announce`: makes an
    event of weights that were published, or not; no action follows from that. `access`: how stores are reached."""

    def __init__(
        self,
        api: Api,
        changed: Callable[[JobKey], None],
        announce: AnnounceEvent | None = None,
        access: StoreAccess | None = None,
    ) -> None:
        self._api = api
        self._access = access or StoreAccess(Path())
        self._changed = changed
        self._announce = announce
        self._polled: dict[JobKey, PolledStore] = {}
        self._tokens: dict[JobKey, BatchTokens] = {}  # also of stores that are not read for now
        self._slots = ReadSlots()

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
        tokens = self._tokens.get(record.key)
        if tokens is None or tokens.uid != record.uid:
            tokens = self._tokens[record.key] = BatchTokens(record.uid)
        polled = self._polled[record.key] = PolledStore(record, tokens, watched_since=_now())
        polled.task = asyncio.create_task(self._follow(polled), name=f"store of {record.key[0]}/{record.key[1]}")

    def unwatch(self, key: JobKey) -> None:
        """Reads it no longer, for now."""
        polled = self._polled.pop(key, None)
        if polled is not None and polled.task is not None:
            polled.task.cancel()

    def forget(self, key: JobKey) -> None:
        """The job is gone."""
        self.unwatch(key)
        self._tokens.pop(key, None)

    def view(self, key: JobKey) -> StoreView | None:
        """The newest view; None when there is none, or only an old one."""
        polled = self._polled.get(key)
        return polled.view if polled is not None and not self._stale(polled) else None

    def loads(self, key: JobKey) -> bool:
        """Whether the store has said at the last reading that it loads its data."""
        polled = self._polled.get(key)
        return polled is not None and polled.loads

    def problem(self, key: JobKey) -> StoreProblem | None:
        """Why the store was not to be read at the last try, though it may be well."""
        polled = self._polled.get(key)
        return polled.problem if polled is not None else None

    def settling(self, key: JobKey) -> bool:
        """Whether it is too early to say that the store does not answer."""
        polled = self._polled.get(key)
        if polled is None or polled.view is not None or polled.problem is not None:
            return False
        return _now() - polled.watched_since < self._stale_after

    def inflight(self, key: JobKey) -> int:
        """Requests that workers ran when the store was last read."""
        polled = self._polled.get(key)
        return polled.inflight if polled is not None else 0

    def tokens(self, key: JobKey) -> int:
        """Generated since the store was first read, in batches that were there then or came later: it only grows."""
        tokens = self._tokens.get(key)
        return tokens.total if tokens is not None else 0

    def tokens_per_second(self, key: JobKey) -> float | None:
        """Of late; None while too little is known."""
        polled = self._polled.get(key)
        if polled is None or len(polled.token_counts) < 2:
            return None
        (start, first), (end, last) = polled.token_counts[0], polled.token_counts[-1]
        return (last - first) / (end - start) if end > start else None

    def health(self, key: JobKey) -> StoreHealth | None:
        """How the job's store does, for threads too; None of one that is not read."""
        polled = self._polled.get(key)
        if polled is None:
            return None
        view = polled.view
        up = view is not None and not polled.failures
        memory = view.memory if view is not None else StoreMemory()
        return StoreHealth(up, memory, polled.read_seconds, polled.publishing_seconds)

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

    def _silence_pause(self, polled: PolledStore) -> float:
        """The longer a store has never answered, the less it matters that its first answer is heard at once."""
        silent = _now() - polled.watched_since if not polled.read_at else 0.0
        return min(silent / 10, SILENT_SECONDS)

    async def _follow(self, polled: PolledStore) -> None:
        try:
            while True:
                answered = polled.view is not None and not polled.failures
                async with self._slots.slot(polled.record.key[0], answered=answered):
                    await self._poll(polled)
                longest = max(RETRY_SECONDS, 3 * self.interval, self._silence_pause(polled))
                pause = min(self.interval * 2.0 ** min(polled.failures, 10), longest)
                await asyncio.sleep(pause if polled.problem is None else max(pause, FORBIDDEN_SECONDS))
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
            began = _now()
            async with asyncio.timeout(READ_SECONDS):
                view = await self._read(polled, polled.store)
            polled.read_seconds = _now() - began
        except Exception as error:  # a heartbeat that cannot be parsed must not end the reading either
            if not polled.failures:
                known = isinstance(error, (OpenseerError, TimeoutError, OSError))
                log.info("%s/%s: store: %s", *key, str(error) or "no answer in time", exc_info=not known)
            polled.failures += 1
            if self._stale(polled):
                polled.view = None  # nobody is told of it any more, and it may be large
            polled.loads = isinstance(error, StoreLoadingError)
            polled.problem = _problem_of(error, opened=polled.store is not None)
            if polled.store is not None and _wants_another_url(error, polled.failures):
                leaving, polled.store = polled.store, None
                await leaving.close()
            silence = polled.problem or ("loads" if polled.loads else None)
            state: object = silence if self._stale(polled) else polled.actionable_state
        else:
            polled.failures, polled.loads, polled.problem = 0, False, None
            polled.view, polled.read_at = view, _now()
            state = actionable_state(polled.record.job, view)
        if state != polled.actionable_state:
            polled.actionable_state = state
            self._changed(key)

    async def _read(self, polled: PolledStore, store: Store) -> StoreView:
        """One call after the other: they share one connection, and there may be a thousand stores."""
        job = polled.record.job
        serves = job is not None and job.spec.mode == "serve"
        batches = await open_batches(store) if serves else {BATCH_JOB_BATCH: await store.progress(BATCH_JOB_BATCH)}
        fleet_spec = await store.fleet_spec() if serves else FleetSpec()
        await self._announce_weights(polled, fleet_spec)
        workers = await store.workers()
        transaction = fleet_spec.active_transaction
        now = await store.now() if workers or transaction is not None else 0.0
        polled.publishing_seconds = now - transaction.started_at if transaction is not None else 0.0
        polled.inflight = sum(worker.inflight for worker in workers)
        polled.tokens.note({number: progress.tokens for number, progress in batches.items()})
        reports = reports_of((worker for worker in workers if worker.seen_at >= now - REPORT_SECONDS), fleet_spec)
        self._note_speed(polled, sum(report.state is WorkerState.BUSY for report in reports.values()))
        return StoreView(
            total_progress(batches.values()),
            reports,
            fleet_spec.rest == "stop",
            await store.memory(),
            polled.inflight,
            _worker_speed(polled),
            GpuSeconds.of(job, await store.load()) if job is not None else GpuSeconds(),
        )

    def _note_speed(self, polled: PolledStore, busy: int) -> None:
        """Tokens and busy workers at this reading; those of the last RATE_SECONDS are kept."""
        counts, seconds = polled.token_counts, polled.busy_seconds
        counts.append((_now(), polled.tokens.total))
        passed = counts[-1][0] - counts[-2][0] if len(counts) > 1 else 0.0
        seconds.append((seconds[-1] if seconds else 0.0) + busy * passed)
        while counts[-1][0] - counts[0][0] > RATE_SECONDS and len(counts) > 2:
            counts.popleft()
            seconds.popleft()

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
        secret = polled.record.status.get("storeSecret") or store_name(job)
        url = await self._access.url(job, polled.record.uid, secret, partial(self._read_secret, job.namespace))
        return await open_store(
            url,
            job.name,
            job.namespace,
            retry_seconds=CONNECT_SECONDS,
            loading_seconds=0.0,
            dial=self._access.dial(job),
            limit=REPLY_LIMIT,
        )

    async def _read_secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The data of a Secret that its namespace lets us read. Raises StoreForbiddenError where it does not."""
        try:
            return (await self._api.get("Secret", namespace, name)).get("data") or {}
        except KubeApiError as error:
            if error.status == FORBIDDEN:
                raise self._access.secret_forbidden(namespace, name) from None
            raise


def _problem_of(error: Exception, *, opened: bool) -> StoreProblem | None:
    """What keeps a store from being read until a person changes something."""
    if isinstance(error, StoreForbiddenError):
        return StoreProblem(error.reason, str(error))
    if isinstance(error, InputError) and not opened:
        return StoreProblem("StoreInvalid", str(error))
    return None


def _wants_another_url(error: Exception, failures: int) -> bool:
    """Whether a store that failed is to be looked for anew. One that loads its data is where it was."""
    if isinstance(error, StoreLoadingError):
        return False
    refused = isinstance(error, StoreError) and not isinstance(error, StoreUnavailableError)
    return refused or failures % REOPEN_FAILURES == 0


def _worker_speed(polled: PolledStore) -> float | None:
    """Tokens per second of a busy worker, None before workers were busy for LEAST_BUSY_SECONDS in all."""
    counts, seconds = polled.token_counts, polled.busy_seconds
    busy = seconds[-1] - seconds[0]
    return (counts[-1][1] - counts[0][1]) / busy if busy >= LEAST_BUSY_SECONDS else None


def _now() -> float:
    return asyncio.get_running_loop().time()
