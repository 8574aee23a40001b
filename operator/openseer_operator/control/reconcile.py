"""One look at one job: observe, plan, write down what must not be forgotten, act."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.store_url import manages_store
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import Memory
from openseer_core.plan.plan import plan
from openseer_core.queue.messages import BatchProgress
from openseer_operator.control.apply import Applier, ApplyTarget
from openseer_operator.control.metrics import Board, JobMetrics
from openseer_operator.control.observe import Observer
from openseer_operator.control.stores import Stores
from openseer_operator.kube.api import Api, Json, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.rate_limiter import RateLimiter
from openseer_operator.objects.reading import JobRecord, Key
from openseer_operator.objects.status import Facts, memory_of, refused, status_of, urgent
from openseer_operator.settings import FINALIZER, OperatorSettings

AGAIN_SECONDS = 0.1
"""A job that asked for something is looked at again so soon, for what follows from it; then ever later …"""
MOST_AGAIN_SECONDS = 30.0
"""… up to this, while each look asks for something."""
SETTLING_SECONDS = 1.0
"""Until a store that was not asked yet has had time to answer, nothing is said of it."""
PROGRESS_SECONDS = 10.0
"""Between two writes of one job's progress."""
STILL_SECONDS = 60.0
"""The same, while nothing but estimates changes."""
PROGRESS_SHARE = 0.5
"""Of all status writes, so much may go to progress."""


class Reconciler:
    """`look` is what the loop calls; nobody else changes anything in the cluster."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        census: Census,
        stores: Stores,
        observer: Observer,
        applier: Applier,
        board: Board,
        settings: OperatorSettings,
    ) -> None:
        self._api = api
        self._cache = cache
        self._census = census
        self._stores = stores
        self._observer = observer
        self._applier = applier
        self._board = board
        self._settings = settings
        self._turns = RateLimiter(settings.status_writes)
        self._written: dict[Key, float] = {}
        self._streaks: dict[Key, int] = {}

    def is_new(self, key: Key) -> bool:
        """Whether nothing was done for the job yet."""
        record = self._cache.job(key)
        return record is not None and not record.status

    async def look(self, key: Key) -> float | None:
        """In how many seconds to look again even if nothing happens. Raises OpenseerError for what may pass."""
        record = self._cache.job(key)
        if record is None:
            self._forget(key)
            return None
        try:
            problems = self._observer.problems(record)
            if problems or record.job is None:
                return await self._refuse(record, problems)
            return await self._pursue(record, record.job)
        except NotThereError:
            if self._cache.job(key) is None:  # deleted meanwhile: nothing is left to be done
                return AGAIN_SECONDS
            raise

    async def _pursue(self, record: JobRecord, job: RolloutJob) -> float | None:
        self._follow_store(record, job)
        now = time.time()
        seen = self._observer.observe(record, now)
        decided = plan(seen)
        image = job.spec.image or record.status.get("image") or self._settings.worker_image
        facts = Facts(record.generation, image, self._stores.tokens_per_second(record.key))
        status = status_of(seen, decided, facts, record.status)
        self._board.jobs[record.key] = JobMetrics(
            seen.progress,
            status["workers"],
            self._stores.inflight(record.key),
            facts.tokens_per_second,
            self._stores.tokens(record.key) if job.spec.mode == "serve" else seen.progress.tokens,
        )
        wait = None if record.deleting_since is not None else await self._write(record, status, now)
        due = await self._applier.apply(ApplyTarget(record, job, image, now), decided.actions)
        acted = any(not isinstance(action, Announce) for action in decided.actions)
        again = self._again(record.key, acted)
        refresh = self._interval if seen.store is not None else None
        wake = decided.wake_at - now if decided.wake_at is not None else None
        return min((one for one in (wait, due, again, wake, refresh) if one is not None), default=None)

    def _again(self, key: Key, acted: bool) -> float | None:
        """What was done may call for more, but a plan that asks for the same for ever must not keep us busy."""
        if not acted:
            self._streaks.pop(key, None)
            return None
        streak = self._streaks[key] = self._streaks.get(key, 0) + 1
        return min(AGAIN_SECONDS * 2.0 ** min(streak - 1, 20), MOST_AGAIN_SECONDS)

    def _follow_store(self, record: JobRecord, job: RolloutJob) -> None:
        """Reads the store of a job that is not over; a managed one only once its pod takes connections."""
        memory = memory_of(record.status)
        leaving = record.deleting_since is not None
        needed = FINALIZER in record.finalizers if leaving else memory.ending is None
        if needed and manages_store(job):
            needed = any(pod.ready for pod in self._cache.store_pods(record.key))
        if needed:
            self._stores.watch(record)
        else:
            self._stores.leave(record.key)

    # ---- status

    async def _write(self, record: JobRecord, status: Json, now: float) -> float | None:
        """What actions rest on is written at once, what people read in turn. Returns seconds until its turn."""
        if status == record.status:
            return None
        if _kept(status) != _kept(record.status):
            await self._put(record, status, now)
            return None
        if self._stores.settling(record.key):
            return SETTLING_SECONDS
        if not urgent(status, record.status):
            still = _counts(status) == _counts(record.status)
            pause = max(self._interval, STILL_SECONDS) if still else self._interval
            left = self._written.setdefault(record.key, now) + pause - now
            if left > 0:
                return left
        wait = self._turns.wait(record.uid, now)
        if not wait:
            await self._put(record, status, now)
            return None
        return wait

    @property
    def _interval(self) -> float:
        """Seconds between two writes of one job's progress: the longer the more jobs there are."""
        return max(PROGRESS_SECONDS, len(self._stores) / (PROGRESS_SHARE * self._settings.status_writes))

    async def _put(self, record: JobRecord, status: Json, now: float) -> None:
        namespace, name = record.key
        body: Json = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"namespace": namespace, "name": name, "uid": record.uid},
            "status": status,
        }
        self._cache.put_job(await self._api.apply("RolloutJob", body, "status"))
        self._written[record.key] = now

    async def _refuse(self, record: JobRecord, problems: str) -> float | None:
        """Says why nothing is done; what runs goes on. A deleted job is let go: its store is no longer known."""
        if record.deleting_since is not None:
            if FINALIZER in record.finalizers:
                await self._applier.release(record)
            return None
        now = time.time()
        status = refused(problems, record.generation, record.status, now)
        if status == record.status:
            return None
        wait = self._turns.wait(record.uid, now)
        if wait:
            return wait
        await self._put(record, status, now)
        return None

    def _forget(self, key: Key) -> None:
        self._stores.leave(key)
        self._observer.forget(key)
        self._census.forget(key)
        self._board.jobs.pop(key, None)
        self._written.pop(key, None)
        self._streaks.pop(key, None)


def _kept(status: Mapping[str, Any]) -> tuple[Memory, str]:
    """What of a status the operator relies on, all but counts that can be read again."""
    return replace(memory_of(status), progress=BatchProgress()), status.get("image", "")


def _counts(status: Mapping[str, Any]) -> dict[str, Any]:
    progress: Mapping[str, Any] = status.get("progress") or {}
    return {name: value for name, value in progress.items() if name not in ("etaSeconds", "tokensPerSecond")}
