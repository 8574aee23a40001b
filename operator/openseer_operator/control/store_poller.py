"""Polls the stores of running jobs for counts and workers' reports. No reconcile step waits for a store."""

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
"""Timeout for connecting to a store, in seconds."""
READ_SECONDS = 2.0
"""Timeout of one reading, in seconds."""
READ_EVERY_SECONDS = 1.0
"""Shortest interval between readings of one store, in seconds."""
READS_PER_SECOND = 200.0
"""Limit of readings per second, over all stores."""
RETRY_SECONDS = 5.0
"""Limit of the growing pause after failed readings, in seconds; or three reading intervals, if those are longer."""
SILENT_SECONDS = 60.0
"""Limit, in seconds, of the pause for a store that has never answered: a tenth of the time since polling began, but not
more than this. RETRY_SECONDS applies if it is longer."""
REOPEN_FAILURES = 3
"""Number of consecutive failed readings after which the operator reads the store's URL again: its Secret may contain
another password or address. If the store rejects the operator (e.g. a wrong password), it reads the URL again at
once."""
FORBIDDEN_SECONDS = 30.0
"""Pause after a problem that needs a user's action, in seconds."""
STALE_SECONDS = 5.0
"""Age, in seconds, above which a view is not used; three reading intervals, if those are longer."""
REPORT_SECONDS = 30.0
"""Age, in seconds, above which a worker's heartbeat is ignored."""
RATE_SECONDS = 30.0
"""Window over which tokens per second are measured, in seconds."""
LEAST_BUSY_SECONDS = 10.0
"""A worker's speed is unknown until the busy times of all workers within that window sum up to this many seconds."""
REPLY_LIMIT = ReplyLimit(bytes=8 * 2**20, parts=2**16)
"""Limit of one answer: heartbeats of MOST_WORKERS of 2 KiB each, or 1,500 open batches. It does not depend on the job's
number of workers: the store keeps records of killed workers after a fleet has shrunk."""
PURGE_SECONDS = 10.0
"""Timeout of deleting a job's keys, in seconds."""

log = logging.getLogger(__name__)

AnnounceEvent = Callable[[JobRecord, Announce], Awaitable[None]]
"""A function that makes an event on a job."""


@dataclass(slots=True)
class PolledStore:
    """One store that the operator polls.

    `tokens`: tokens generated in the job's batches; `view`: the last view, None once it is stale; `watched_since`: time
    at which polling began; `read_at`: time of the last successful reading, 0 before the first (both on the clock of the
    event loop); `inflight`: number of running requests; `failures`: number of consecutive failed readings; `loads`:
    whether the store was loading its data; `problem`: the problem that needs a user's action, None without one.
    `actionable_state`: the part of the last reading whose change requires a reconcile step. `last_transaction`: number
    of the latest ended weights transaction at the last reading, None before the first reading. `read_seconds`,
    `publishing_seconds`: as in StoreHealth. `token_counts`: (time, tokens so far) at each reading within RATE_SECONDS;
    `busy_seconds`: at the same readings, the busy seconds of all workers so far.
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
    """Polls stores. `changed`: called with a job's key when a reading may require a reconcile step. `announce`: makes
    an event about the end of a weights transaction; such an end requires no reconcile step. `access`: opens stores."""

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
        self._tokens: dict[JobKey, BatchTokens] = {}  # also of stores that are not polled now
        self._slots = ReadSlots()

    def __len__(self) -> int:
        return len(self._polled)

    # ---- for a reconcile step

    def watch(self, record: JobRecord) -> None:
        """Starts polling the job's store, and returns at once."""
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
        """Stops polling the job's store."""
        polled = self._polled.pop(key, None)
        if polled is not None and polled.task is not None:
            polled.task.cancel()

    def forget(self, key: JobKey) -> None:
        """Drops the data of a deleted job."""
        self.unwatch(key)
        self._tokens.pop(key, None)

    def view(self, key: JobKey) -> StoreView | None:
        """The latest view; None if there is none, or it is stale."""
        polled = self._polled.get(key)
        return polled.view if polled is not None and not self._stale(polled) else None

    def loads(self, key: JobKey) -> bool:
        """Whether the store was loading its data at the last reading."""
        polled = self._polled.get(key)
        return polled is not None and polled.loads

    def problem(self, key: JobKey) -> StoreProblem | None:
        """The problem of the last reading that needs a user's action (no permission, a forbidden host, an invalid URL);
        None without one. It says nothing about the store's health."""
        polled = self._polled.get(key)
        return polled.problem if polled is not None else None

    def settling(self, key: JobKey) -> bool:
        """Whether polling began too recently to report that the store does not answer."""
        polled = self._polled.get(key)
        if polled is None or polled.view is not None or polled.problem is not None:
            return False
        return _now() - polled.watched_since < self._stale_after

    def inflight(self, key: JobKey) -> int:
        """Number of running requests at the last reading."""
        polled = self._polled.get(key)
        return polled.inflight if polled is not None else 0

    def tokens(self, key: JobKey) -> int:
        """Tokens generated in all batches so far, those generated before the first reading included; never
        decreases."""
        tokens = self._tokens.get(key)
        return tokens.total if tokens is not None else 0

    def tokens_per_second(self, key: JobKey) -> float | None:
        """Tokens per second over the last RATE_SECONDS; None before two readings."""
        polled = self._polled.get(key)
        if polled is None or len(polled.token_counts) < 2:
            return None
        (start, first), (end, last) = polled.token_counts[0], polled.token_counts[-1]
        return (last - first) / (end - start) if end > start else None

    def health(self, key: JobKey) -> StoreHealth | None:
        """The health of the job's store; None if it is not polled. May be called from any thread."""
        polled = self._polled.get(key)
        if polled is None:
            return None
        view = polled.view
        up = view is not None and not polled.failures
        memory = view.memory if view is not None else StoreMemory()
        return StoreHealth(up, memory, polled.read_seconds, polled.publishing_seconds)

    async def purge(self, key: JobKey) -> None:
        """Deletes the job's keys. Raises StoreUnavailableError or TimeoutError if the store does not answer."""
        polled = self._polled[key]
        async with asyncio.timeout(PURGE_SECONDS):
            store = polled.store or await self._open(polled)
            await store.purge(forget=True)

    async def close(self) -> None:
        """Stops polling all stores."""
        tasks = [polled.task for polled in self._polled.values() if polled.task is not None]
        for key in list(self._polled):
            self.unwatch(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- reading

    @property
    def interval(self) -> float:
        """Interval between readings of one store, in seconds."""
        return max(READ_EVERY_SECONDS, len(self._polled) / READS_PER_SECOND)

    def _stale(self, polled: PolledStore) -> bool:
        return _now() - polled.read_at > self._stale_after

    @property
    def _stale_after(self) -> float:
        return max(STALE_SECONDS, 3 * self.interval)

    def _silence_pause(self, polled: PolledStore) -> float:
        """Limit of the pause for a store that never answered, in seconds (see SILENT_SECONDS); 0 for other stores."""
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
        """Reads the store once. Logs only the first of consecutive failures, and requests a reconcile step once the
        last view is stale."""
        key = polled.record.key
        try:
            if polled.store is None:
                async with asyncio.timeout(CONNECT_SECONDS + READ_SECONDS):
                    polled.store = await self._open(polled)
            began = _now()
            async with asyncio.timeout(READ_SECONDS):
                view = await self._read(polled, polled.store)
            polled.read_seconds = _now() - began
        except Exception as error:  # no error may end the polling, such as a heartbeat that cannot be parsed
            if not polled.failures:
                known = isinstance(error, (OpenseerError, TimeoutError, OSError))
                log.info("%s/%s: store: %s", *key, str(error) or "no answer in time", exc_info=not known)
            polled.failures += 1
            if self._stale(polled):
                polled.view = None  # a stale view is not used, and may be large
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
        """Reads the store by sequential calls: each store has one connection, and there may be a thousand stores."""
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
        polled.tokens.note({number: progress.own_tokens for number, progress in batches.items()})
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
        """Records the tokens and the number of busy workers at this reading; drops readings older than RATE_SECONDS."""
        counts, seconds = polled.token_counts, polled.busy_seconds
        counts.append((_now(), polled.tokens.total))
        passed = counts[-1][0] - counts[-2][0] if len(counts) > 1 else 0.0
        seconds.append((seconds[-1] if seconds else 0.0) + busy * passed)
        while counts[-1][0] - counts[0][0] > RATE_SECONDS and len(counts) > 2:
            counts.popleft()
            seconds.popleft()

    async def _announce_weights(self, polled: PolledStore, fleet_spec: FleetSpec) -> None:
        """Makes an event about a transaction that has ended since the last reading; no event at the first reading."""
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
        """The data of a Secret. Raises StoreForbiddenError without permission to read Secrets in its namespace."""
        try:
            return (await self._api.get("Secret", namespace, name)).get("data") or {}
        except KubeApiError as error:
            if error.status == FORBIDDEN:
                raise self._access.secret_forbidden(namespace, name) from None
            raise


def _problem_of(error: Exception, *, opened: bool) -> StoreProblem | None:
    """The problem of a store that cannot be read without a user's action; None for other errors."""
    if isinstance(error, StoreForbiddenError):
        return StoreProblem(error.reason, str(error))
    if isinstance(error, InputError) and not opened:
        return StoreProblem("StoreInvalid", str(error))
    return None


def _wants_another_url(error: Exception, failures: int) -> bool:
    """Whether to read the URL of the store again after a failed reading; False while the store is loading its data."""
    if isinstance(error, StoreLoadingError):
        return False
    refused = isinstance(error, StoreError) and not isinstance(error, StoreUnavailableError)
    return refused or failures % REOPEN_FAILURES == 0


def _worker_speed(polled: PolledStore) -> float | None:
    """Tokens per second of a busy worker; None until the workers' busy times sum up to LEAST_BUSY_SECONDS."""
    counts, seconds = polled.token_counts, polled.busy_seconds
    busy = seconds[-1] - seconds[0]
    return (counts[-1][1] - counts[0][1]) / busy if busy >= LEAST_BUSY_SECONDS else None


def _now() -> float:
    return asyncio.get_running_loop().time()
