"""One reconcile step of one job: observe, plan, write the memory, apply.

A cluster changes at any moment: pods end, nodes fail, users edit jobs, and the operator itself is replaced. A watch
delivers events late, twice or not at all. An operator that reacted to single events would have to handle every possible
order of events. So a step does not depend on the event that requested it (it is level-triggered). It has four parts:

1. Observe: `Observer` combines the caches into one `Observation`: the job and its pods (watch), its shared objects
   (census), the latest reading of its store (poller), the last refusals, and the memory from the job's status.
2. Plan: core's `plan` is a pure function from the observation to one `Plan`: actions, the new memory, and the time of
   the next step.
3. Write the memory into the status first, because the actions rely on it.
4. Apply: `Applier` carries out the actions. The API server's answers go into the caches at once; its refusals are part
   of the next observation.

Example: a job wants 2 workers and allows 2 failures of each. worker-1 exits with code 7 at 12:00:00.

  step  observation                              plan
  1     worker-1, attempt 0, has failed          memory: worker-1 has 1 failure, 1 attempt; event MemberEnded;
                                                 delete the pod
  2     no worker-1, 1 failure at 12:00:00       nothing; next step at 12:00:00.5, the end of the back-off
  3     the same at 12:00:00.5                   create worker-1, attempt 1
  4     worker-1, attempt 1, runs                nothing: at rest

If the operator dies in step 1 after it has written the memory, its successor finds the failed pod of attempt 0 and a
memory with 1 attempt. It counts only pods of attempt 1 and later, so its plan only deletes the pod, and the failure
counts once. If the watch has missed a deletion, the census finds it within 5 minutes (CENSUS_SECONDS) and requests a
step. If the watch has missed a change, /healthz fails, and Kubernetes restarts the operator.

Consequences: a step may be repeated or delayed at any point; each replica can continue from the status; the plan of a
job at rest is empty. As long as every plan of a job has actions other than events, its next step follows after 0.1 s,
then 0.2 s, up to 30 s.
More examples: tests/core/plan/transcripts; the reasons: docs/decisions/0006, 0007, 0022 and 0023.
"""

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
"""Time until the next step of a job after a step with actions, in seconds; it doubles with each further such step."""
MOST_REQUEUE_SECONDS = 30.0
"""Limit of that time, in seconds."""
SETTLING_SECONDS = 1.0
"""Pause, in seconds, after which a status write is tried again while the operator is still connecting to the store."""
PROGRESS_SECONDS = 10.0
"""Shortest interval between status writes of one job's progress, in seconds."""
ESTIMATES_SECONDS = 60.0
"""Shortest interval, in seconds, between status writes that change only estimates (tokens per second, ETA), the backlog
or the number of busy workers."""
PROGRESS_SHARE = 0.5
"""Share of the limit of status writes (`settings.status_writes`) that writes of progress may use."""


class Reconciler:
    """Carries out reconcile steps. The loop calls `reconcile`, which makes all changes of jobs' objects."""

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
        self._scaling: dict[JobKey, tuple[str, ScalingState]] = {}  # with the job's uid; newer than the status's
        self._streaks: dict[JobKey, int] = {}
        self._counters: dict[JobKey, JobCounters] = {}

    def is_new(self, key: JobKey) -> bool:
        """Whether the job is new: no reconcile step has written its status yet."""
        record = self._cache.job(key)
        return record is not None and not record.status.get("conditions")

    async def reconcile(self, key: JobKey) -> float | None:
        """Carries out one step. Returns the seconds until the next step if nothing changes; None if no step is due
        then. Raises OpenseerError for an error after which a retry may succeed."""
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
            if self._cache.job(key) is None:  # the job was deleted during the step
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
        over = record.deleting_since is not None or decided.memory.ending is not None
        self._state.jobs[record.key] = JobMetrics(
            observation.progress,
            status["workers"],
            self._poller.inflight(record.key),
            details.tokens_per_second,
            counters,
            decided.memory.backlog,
            needs_store=not over and not job.spec.suspend,
        )
        wait = None if record.deleting_since is not None else await self._write(record, status, now)
        counters.note_ends(decided.ended)  # after the write: if it fails, the next step finds the same ends again
        # After the write: a scale-down window ends only once the status has the number of workers that it decided.
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
        """The job's counters, raised to the observed values."""
        counters = self._counters.get(record.key)
        if counters is None or counters.uid != record.uid:
            counters = self._counters[record.key] = JobCounters(record.uid)
        # Only the status has the tokens of a batch that ended before this process started.
        written = 0 if job.spec.mode == "serve" else observation.progress.tokens
        counters.note(max(written, self._poller.tokens(record.key)), observation.gpu_seconds)
        return counters

    def _recall_scaling(self, record: JobRecord, observation: Observation) -> Observation:
        """Adds the newest scaling state: it may change in each step, but is written only as often as progress."""
        uid, scaling = self._scaling.get(record.key, ("", ScalingState()))
        if uid != record.uid:
            return observation
        return replace(observation, memory=replace(observation.memory, scaling=scaling))

    async def _look_at_templates(self, record: JobRecord, observation: Observation) -> tuple[Observation, float | None]:
        """Adds the verdict on the templates (whether Kubernetes accepts the objects made from them), unless the job
        needs no new pods. Also returns the seconds until the next check, None if no check is due."""
        memory, _ = revive(observation, observation.memory)
        over = record.deleting_since is not None or memory.ending is not None
        if over or observation.job.spec.suspend:
            return observation, None
        verdict = await self._templates.verdict(record, observation.job, observation.now)
        return replace(observation, templates=verdict), RECHECK_SECONDS.get(verdict.answer)

    async def _look_at_volume(self, observation: Observation) -> Observation:
        """Adds the reason why the data are at risk if a second Redis starts (`volume_risk`). Only for a pod of Redis
        that has not ended after its grace period and whose node has not confirmed the end."""
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
        """Seconds until the next step after a step with actions, else None. They grow, so that a job whose plans always
        have actions has few steps."""
        if not acted:
            self._streaks.pop(key, None)
            return None
        streak = self._streaks[key] = self._streaks.get(key, 0) + 1
        return min(REQUEUE_SECONDS * 2.0 ** min(streak - 1, 20), MOST_REQUEUE_SECONDS)

    def _follow_store(self, record: JobRecord, job: RolloutJob) -> None:
        """Starts or stops reading the store. It is read until the job is over, or a deleted job's keys are purged; a
        managed Redis only while its pod is ready."""
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
        """Writes the status: at once if actions rely on the change, else within the limits of writes. Returns the
        seconds until the write is due; None if it was made or is not needed."""
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
        """Interval of status writes of one job's progress, in seconds; it grows with the number of stores that are
        read."""
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
        """Writes to the status why the manifest is refused; running pods stay. If such a job is being deleted, only
        removes its finalizer: without a valid manifest the address of its store is unknown."""
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
    """The part of a status that actions rely on. It excludes progress, backlog and GPU time, which can be read
    again, and the scaling state."""
    memory = replace(memory_of(status), progress=BatchProgress(), backlog=Backlog(), gpu_seconds=GpuSeconds())
    memory = replace(memory, scaling=ScalingState())
    return memory, status.get("image", ""), status.get("storeSecret", "")


def _without_gpu_time(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status without GPU time, which always grows: it is written only together with other changes."""
    return {name: value for name, value in status.items() if name != "gpuSeconds"}


def _counts(status: Mapping[str, Any]) -> dict[str, Any]:
    """The progress without its estimates, together with the scaling state."""
    progress: Mapping[str, Any] = status.get("progress") or {}
    counts = {name: value for name, value in progress.items() if name not in ("etaSeconds", "tokensPerSecond")}
    return counts | {"scaling": status.get("scaling")}
