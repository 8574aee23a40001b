"""Builds the observation of one job that `plan` reads, from cache, census and store."""

from collections.abc import Mapping
from dataclasses import dataclass

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import derived_secret_name, manages_store, store_name
from openseer_core.plan.observation import Observation, Pod, PodPhase
from openseer_core.plan.workers import standing_workers
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.objects.managed_redis import store_pod_name, store_stateful_set
from openseer_operator.objects.names import TEMPLATE_ANNOTATION, TOO_SMALL
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import JobKey, JobRecord
from openseer_operator.objects.shared import shared_objects
from openseer_operator.objects.status import last_desired_workers, memory_of
from openseer_operator.settings import FINALIZER, OperatorSettings

STORE_SECRET = "storeSecret"
"""Key of the Secret of a managed Redis among the shared objects."""
SECRET_SECONDS = 60.0
"""Interval, in seconds, at which the operator tries to create that Secret again while a pod starts or no pod of Redis
is ready. The operator may not read Secrets; only a new attempt shows that the Secret was deleted. An existing Secret
does not change."""

RESIZE_SECONDS = 60.0
"""Interval of attempts to enlarge a volume after a refusal, in seconds."""
MOST_SETS = 8
"""Limit of remembered StatefulSets of one job. Deleted ones are remembered, because their pods may still run on a lost
node."""


@dataclass(frozen=True, slots=True)
class DesiredObjects:
    """The shared objects of one generation of a job. `objects`: kind, name and hash by key; `problems`: why its
    manifest cannot be carried out, "" if it can. They depend on `standing`, the number of workers that the
    PodDisruptionBudget counts (`standing_workers`), on `runs`, whether the job should run, and on `secret`, the name of
    the managed Redis' Secret. `store`: hash of the managed Redis, "" without one."""

    uid: str
    generation: int
    standing: int
    runs: bool
    secret: str
    objects: Mapping[str, tuple[str, str, str]]
    problems: str = ""
    store: str = ""


def standing_workers_of(record: JobRecord, cache: Cache) -> int:
    """The desired workers minus those that cannot start: the number that the PodDisruptionBudget counts. Requires a job
    with a valid manifest."""
    assert record.job is not None
    return standing_workers(
        cache.pods_of(record), last_desired_workers(record.status) or record.job.spec.workers.replicas
    )


def is_to_run(record: JobRecord) -> bool:
    """Whether the job should run: it is not suspended, and its status does not say that it is complete or failed.
    Requires a job with a valid manifest."""
    assert record.job is not None
    return not record.job.spec.suspend and memory_of(record.status).ending is None


class Observer:
    """Observes jobs. It renders the objects of a job again only after a change of their inputs, and compares hashes."""

    def __init__(self, cache: Cache, census: Census, poller: StorePoller, settings: OperatorSettings) -> None:
        self._cache = cache
        self._census = census
        self._poller = poller
        self._settings = settings
        self._desired: dict[JobKey, DesiredObjects] = {}
        self._without_store: dict[JobKey, float] = {}  # time at which the pod of its Redis was first missing
        self._sets: dict[JobKey, tuple[str, tuple[str, ...]]] = {}  # uids of the job and of its StatefulSets

    def problems(self, record: JobRecord) -> str:
        """Why the operator cannot carry out the manifest; "" if it can."""
        return record.problems or self._desired_objects(record).problems

    def observe(self, record: JobRecord, now: float) -> Observation:
        """The observation of a job with a valid manifest. `now`: seconds since the epoch."""
        job = record.job
        assert job is not None
        store_pods = self.store_pods(record)
        redis = self._census.find(record, "StatefulSet", store_name(job))
        shared = {key: self._is_current(record, *entry) for key, entry in self._desired_objects(record).objects.items()}
        if manages_store(job):
            shared[STORE_SECRET] = redis is not None and not self._doubts_secret(record, now)
        missing = redis is not None and redis.replicas == 1 and not store_pods
        return Observation(
            now=now,
            job=job,
            memory=memory_of(record.status),
            deleting_since=record.deleting_since,
            finalizer=FINALIZER in record.finalizers,
            shared=shared,
            store_replicas=redis.replicas if redis is not None else None,
            store_current=redis is None or self._is_store_current(record, redis.template, now),
            volume_problem=self._census.volume_problem(record.key)[0],
            store_pods=len(store_pods),
            store_missing_since=self._store_missing_since(record.key, missing, now),
            redis=next((pod for pod in store_pods if pod.name == store_pod_name(job)), None),
            refusals=self._census.refusals(record.key),
            pods=self._cache.pods_of(record),
            store=self._poller.view(record.key),
            store_loads=self._poller.loads(record.key),
            revive=record.revive,
            store_problem=self._poller.problem(record.key),
        )

    def store_pods(self, record: JobRecord) -> list[Pod]:
        """The pods of the job's managed Redis: those owned by the job's present or an earlier StatefulSet. Labels and
        names do not prove ownership."""
        assert record.job is not None
        known = self._sets.get(record.key)
        uids = known[1] if known is not None and known[0] == record.uid else ()
        found = self._census.find(record, "StatefulSet", store_name(record.job))
        if found is not None and found.uid not in uids:
            uids = (*uids, found.uid)[-MOST_SETS:]
            self._sets[record.key] = record.uid, uids
        return self._cache.store_pods(record.key, uids)

    def store_secret(self, record: JobRecord, job: RolloutJob) -> str:
        """Name of the Secret of a managed Redis: the Secret that the job started with; for a new job the Secret that
        the newest key derives; "" for a Redis of the user's own. Raises InputError for a key that cannot be read."""
        if not manages_store(job):
            return ""
        if named := record.status.get("storeSecret"):
            return named
        if self._census.find(record, "StatefulSet", store_name(job)) is not None:
            return store_name(job)  # a job of an earlier release, with a random password
        return derived_secret_name(job, record.uid, self._settings.stores.keys()[0])

    def forget(self, key: JobKey) -> None:
        """Drops the data of a deleted job."""
        self._desired.pop(key, None)
        self._without_store.pop(key, None)
        self._sets.pop(key, None)

    def _is_store_current(self, record: JobRecord, template: str, now: float) -> bool:
        """Whether the StatefulSet of Redis is up to date. For RESIZE_SECONDS after a refusal to enlarge its volume it
        counts as up to date."""
        wanted = self._desired_objects(record).store
        rests = now - self._census.volume_problem(record.key)[1] < RESIZE_SECONDS
        return template == wanted or (rests and template == wanted + TOO_SMALL)

    def _doubts_secret(self, record: JobRecord, now: float) -> bool:
        """Whether to create the Secret again: a pod is starting or no pod of Redis is ready, and the Secret was last
        confirmed SECRET_SECONDS ago or longer. The operator has no permission to list Secrets."""
        starting = any(pod.phase is PodPhase.PENDING for pod in self._cache.pods_of(record))
        works = any(pod.ready for pod in self.store_pods(record))
        return (starting or not works) and now - self._census.secret_seen_at(record) >= SECRET_SECONDS

    def _store_missing_since(self, key: JobKey, missing: bool, now: float) -> float | None:
        if not missing:
            self._without_store.pop(key, None)
            return None
        return self._without_store.setdefault(key, now)

    def _is_current(self, record: JobRecord, kind: str, name: str, template: str) -> bool:
        owned = self._census.find(record, kind, name)
        return owned is not None and owned.template == template

    def _desired_objects(self, record: JobRecord) -> DesiredObjects:
        known = self._desired.get(record.key)
        standing = standing_workers_of(record, self._cache)
        assert record.job is not None
        secret = self.store_secret(record, record.job)
        made_for = record.uid, record.generation, standing, is_to_run(record), secret
        if known is not None and (known.uid, known.generation, known.standing, known.runs, known.secret) == made_for:
            return known
        rendered = self._desired[record.key] = self._render(record, standing, secret)
        return rendered

    def _render(self, record: JobRecord, standing: int, secret: str) -> DesiredObjects:
        """Renders all objects of a job, so that the job is refused before any object is created if one is invalid."""
        job = record.job
        assert job is not None
        made_for = record.uid, record.generation, standing, is_to_run(record), secret
        try:
            runs = is_to_run(record)
            objects = shared_objects(job, record.uid, self._settings, standing, secret=secret, runs=runs)
            store = self._try_pods(job, record.uid, secret)
        except InputError as error:
            return DesiredObjects(*made_for, {}, str(error))
        entries = {
            key: (body["kind"], body["metadata"]["name"], body["metadata"]["annotations"][TEMPLATE_ANNOTATION])
            for key, body in objects.items()
        }
        return DesiredObjects(*made_for, entries, store=store)

    def _try_pods(self, job: RolloutJob, uid: str, secret: str) -> str:
        """Renders the pods and the managed Redis; returns the hash of the Redis, "" without one. Raises InputError."""
        last = max(0, job.spec.workers.replicas - 1)
        rank = job.spec.workers.parallelism.nodes - 1
        image = self._settings.worker_image
        worker_pod(job, uid, self._settings, image, index=last, rank=rank, attempt=0, secret=secret)
        if job.spec.mode == "batch":
            driver_pod(job, uid, self._settings, image, attempt=0, secret=secret)
        if manages_store(job):
            redis = store_stateful_set(job, uid, self._settings, 1, secret=secret)
            return redis["metadata"]["annotations"][TEMPLATE_ANNOTATION]
        return ""
