"""One reconcile step of one job: observe, plan, write the memory, act."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.store_url import manages_store
from openseer_core.plan.actions import Announce
from openseer_core.plan.backlog import Backlog, ScalingState
from openseer_core.plan.observation import GpuSeconds, Memory, Observation
from openseer_core.plan.plan import plan
from openseer_core.plan.revival import revive
from openseer_core.plan.store import is_lost
from openseer_core.queue.messages import BatchProgress
from openseer_operator.control.apply import Applier, ApplyTarget
from openseer_operator.control.counters import JobCounters
from openseer_operator.control.metrics import JobMetrics, OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.slow_starts import SlowStarts
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.control.templates import RECHECK_SECONDS, TemplateChecker
from openseer_operator.kube.api import Api, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.rate_limiter import RateLimiter
from openseer_operator.kube.volume_safety import volume_risk
from openseer_operator.objects.reading import JobKey, JobRecord, JsonObject
from openseer_operator.objects.status import StatusDetails, is_urgent, memory_of, refused_status, status_of
from openseer_operator.settings import FINALIZER, OperatorSettings

REQUEUE_SECONDS = 0.1
"""A job whose plan had actions is reconciled again so soon, for what follows from them; then ever later …"""
MOST_REQUEUE_SECONDS = 30.0
"""… up to this, while each plan has actions."""
SETTLING_SECONDS = 1.0
"""Until a store that was not asked yet has had time to answer, nothing is reported of it."""
PROGRESS_SECONDS = 10.0
"""Between two writes of one job's progress."""
ESTIMATES_SECONDS = 60.0
"""The same, while nothing but estimates changes."""
PROGRESS_SHARE = 0.5
"""Of all status writes, so much may go to progress."""


class Reconciler:
    """`reconcile` is what the loop calls; nothing else changes anything in the cluster."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        census: Census,
        poller: StorePoller,
        observer: Observer,
        applier: Applier,
        state: OperatorState,
        settings: OperatorSettings,
    ) -> None:
        self._api = api
        self._cache = cache
        self._census = census
        self._poller = poller
        self._observer = observer
        self._applier = applier
        self._state = state
        self._settings = settings
        self._templates = TemplateChecker(api, settings)
        self._slow_starts = SlowStarts(api)
        self._status_limiter = RateLimiter(settings.status_writes)
        self._written_at: dict[JobKey, float] = {}
        self._scaling: dict[JobKey, tuple[str, ScalingState]] = {}  # with the uid: newer than in the status
        self._streaks: dict[JobKey, int] = {}
        self._counters: dict[JobKey, JobCounters] = {}

    def is_new(self, key: JobKey) -> bool:
        """Whether nothing was done for the job yet."""
        record = self._cache.job(key)
        return record is not None and not record.status.get("conditions")

    async def reconcile(self, key: JobKey) -> float | None:
        """In how many seconds to reconcile again even if nothing happens. Raises OpenseerError for what may pass."""
        record = self._cache.job(key)
        if record is None:
            self._forget(key)
            return None
        try:
            problems = self._observer.problems(record)
            if problems or record.job is None:
                return await self._refuse(record, problems)
            return await self._reconcile_job(record, record.job)
        except NotThereError:
            if self._cache.job(key) is None:  # deleted meanwhile: nothing is left to be done
                return REQUEUE_SECONDS
            raise

    async def _reconcile_job(self, record: JobRecord, job: RolloutJob) -> float | None:
        self._follow_store(record, job)
        now = self._api.clock.now()
        observation = self._recall_scaling(record, self._observer.observe(record, now))
        observation = await self._look_at_volume(observation)
        observation, recheck = await self._look_at_templates(record, observation)
        observation, ask = await self._slow_starts.explain(record.key, observation)
        decided = plan(observation)
        image = job.spec.image or record.status.get("image") or self._settings.worker_image
        secret = self._observer.store_secret(record, job)
        details = StatusDetails(record.generation, image, self._poller.tokens_per_second(record.key), secret)
        status = status_of(observation, decided, details, record.status)
        counters = self._count(record, job, observation)
        self._state.jobs[record.key] = JobMetrics(
            observation.progress,
            status["workers"],
            self._poller.inflight(record.key),
            details.tokens_per_second,
            counters,
            decided.memory.backlog,
        )
        wait = None if record.deleting_since is not None else await self._write(record, status, now)
        counters.note_ends(decided.ended)  # only now: until they are written, the next step finds them again
        # Only now: a window is over once the number of workers that it led to is written.
        self._scaling[record.key] = record.uid, decided.memory.scaling
        target = ApplyTarget(record, job, image, secret, now)
        due = await self._applier.apply(target, decided.actions, decided.refused)
        acted = any(not isinstance(action, Announce) for action in decided.actions)
        requeue = self._requeue_delay(record.key, acted)
        refresh = self._interval if observation.store is not None else None
        wake = decided.wake_at - now if decided.wake_at is not None else None
        delays = (wait, due, requeue, wake, refresh, recheck, ask)
        return min((delay for delay in delays if delay is not None), default=None)

    def _count(self, record: JobRecord, job: RolloutJob, observation: Observation) -> JobCounters:
        """The job's counters, with what was observed now."""
        counters = self._counters.get(record.key)
        if counters is None or counters.uid != record.uid:
            counters = self._counters[record.key] = JobCounters(record.uid)
        # Of a batch that was finished before this process began, the status alone knows.
        written = 0 if job.spec.mode == "serve" else observation.progress.tokens
        counters.note(max(written, self._poller.tokens(record.key)), observation.gpu_seconds)
        return counters

    def _recall_scaling(self, record: JobRecord, observation: Observation) -> Observation:
        """A backlog that wavers changes it at each look: it is kept here, and written only so often as progress is."""
        uid, scaling = self._scaling.get(record.key, ("", ScalingState()))
        if uid != record.uid:
            return observation
        return replace(observation, memory=replace(observation.memory, scaling=scaling))

    async def _look_at_templates(self, record: JobRecord, observation: Observation) -> tuple[Observation, float | None]:
        """Whether Kubernetes takes what is made from them, and in how many seconds to ask again. What needs no new pods
        is not asked about."""
        memory, _ = revive(observation, observation.memory)
        over = record.deleting_since is not None or memory.ending is not None
        if over or observation.job.spec.suspend:
            return observation, None
        verdict = await self._templates.verdict(record, observation.job, observation.now)
        return replace(observation, templates=verdict), RECHECK_SECONDS.get(verdict.answer)

    async def _look_at_volume(self, observation: Observation) -> Observation:
        """Only of a Redis that should be gone and is on a node that does not say so."""
        job, redis = observation.job, observation.redis
        if not is_lost(observation) or redis is None:
            return observation
        persistence = job.spec.store.persistence
        if persistence is not None and persistence.medium == "ephemeral":
            risk = "its data is on that node alone (spec.store.persistence.medium: ephemeral)"
        else:
            risk = await volume_risk(self._api, job.namespace, redis)
        return replace(observation, volume_risk=risk)

    def _requeue_delay(self, key: JobKey, acted: bool) -> float | None:
        """What was done may call for more, but a plan that never comes to rest must not keep the operator busy."""
        if not acted:
            self._streaks.pop(key, None)
            return None
        streak = self._streaks[key] = self._streaks.get(key, 0) + 1
        return min(REQUEUE_SECONDS * 2.0 ** min(streak - 1, 20), MOST_REQUEUE_SECONDS)

    def _follow_store(self, record: JobRecord, job: RolloutJob) -> None:
        """Reads the store of a job that is not over; a managed one only once its pod takes connections."""
        memory = memory_of(record.status)
        leaving = record.deleting_since is not None
        needed = FINALIZER in record.finalizers if leaving else memory.ending is None
        if needed and manages_store(job):
            needed = any(pod.ready for pod in self._observer.store_pods(record))
        if needed:
            self._poller.watch(record)
        else:
            self._poller.unwatch(record.key)

    # ---- status

    async def _write(self, record: JobRecord, status: JsonObject, now: float) -> float | None:
        """What actions rely on is written at once, what people read is rate-limited. Returns the seconds to wait."""
        if _without_gpu_time(status) == _without_gpu_time(record.status):
            return None
        if _essential(status) != _essential(record.status):
            await self._apply_status(record, status, now)
            return None
        if self._poller.settling(record.key):
            return SETTLING_SECONDS
        if not is_urgent(status, record.status):
            still = _counts(status) == _counts(record.status)
            pause = max(self._interval, ESTIMATES_SECONDS) if still else self._interval
            left = self._written_at.setdefault(record.key, now) + pause - now
            if left > 0:
                return left
        wait = self._status_limiter.wait(record.key, record.uid, now)
        if not wait:
            await self._apply_status(record, status, now)
            return None
        return wait

    @property
    def _interval(self) -> float:
        """Seconds between two writes of one job's progress: the longer the more jobs there are."""
        return max(PROGRESS_SECONDS, len(self._poller) / (PROGRESS_SHARE * self._settings.status_writes))

    async def _apply_status(self, record: JobRecord, status: JsonObject, now: float) -> None:
        namespace, name = record.key
        body: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"namespace": namespace, "name": name, "uid": record.uid},
            "status": status,
        }
        self._cache.put_job(await self._api.apply("RolloutJob", body, "status"))
        self._written_at[record.key] = now

    async def _refuse(self, record: JobRecord, problems: str) -> float | None:
        """Says why nothing is done; what runs goes on. A deleted job loses its finalizer: its store is unknown."""
        if record.deleting_since is not None:
            if FINALIZER in record.finalizers:
                await self._applier.remove_finalizer(record)
            return None
        now = self._api.clock.now()
        status = refused_status(problems, record.generation, record.status, now)
        if status == record.status:
            return None
        wait = self._status_limiter.wait(record.key, record.uid, now)
        if wait:
            return wait
        await self._apply_status(record, status, now)
        return None

    def _forget(self, key: JobKey) -> None:
        self._poller.forget(key)
        self._observer.forget(key)
        self._templates.forget(key)
        self._slow_starts.forget(key)
        self._applier.forget(key)
        self._status_limiter.keep(key, ())
        self._census.forget(key)
        self._state.jobs.pop(key, None)
        self._written_at.pop(key, None)
        self._scaling.pop(key, None)
        self._streaks.pop(key, None)
        self._counters.pop(key, None)


def _essential(status: Mapping[str, Any]) -> tuple[Memory, str, str]:
    """What of a status the operator relies on, all but counts that can be read again, and what is kept here too."""
    memory = replace(memory_of(status), progress=BatchProgress(), backlog=Backlog(), gpu_seconds=GpuSeconds())
    memory = replace(memory, scaling=ScalingState())
    return memory, status.get("image", ""), status.get("storeSecret", "")


def _without_gpu_time(status: Mapping[str, Any]) -> dict[str, Any]:
    """GPU time grows also while nothing happens: it is written with what else changes, and is a metric meanwhile."""
    return {name: value for name, value in status.items() if name != "gpuSeconds"}


def _counts(status: Mapping[str, Any]) -> dict[str, Any]:
    """What is no estimate."""
    progress: Mapping[str, Any] = status.get("progress") or {}
    counts = {name: value for name, value in progress.items() if name not in ("etaSeconds", "tokensPerSecond")}
    return counts | {"scaling": status.get("scaling")}
