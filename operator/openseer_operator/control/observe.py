"""Cache, census and store of one job → the observation that `plan` reads."""

from collections.abc import Mapping
from dataclasses import dataclass

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import manages_store, store_name
from openseer_core.plan.observation import Observation
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.objects.managed_redis import store_stateful_set
from openseer_operator.objects.names import TEMPLATE_ANNOTATION
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import JobKey, JobRecord
from openseer_operator.objects.shared import shared_objects
from openseer_operator.objects.status import last_desired_workers, memory_of
from openseer_operator.settings import FINALIZER, OperatorSettings

STORE_SECRET = "storeSecret"
"""Key of the Secret of a managed Redis among the shared objects."""


@dataclass(frozen=True, slots=True)
class DesiredObjects:
    """The shared objects of one generation of a job with so many workers desired: kind, name and hash by key; or why
    there can be none."""

    uid: str
    generation: int
    desired: int
    objects: Mapping[str, tuple[str, str, str]]
    problems: str = ""


class Observer:
    """Manifests are rendered once per generation of a job, to be compared by their hashes after that."""

    def __init__(self, cache: Cache, census: Census, poller: StorePoller, settings: OperatorSettings) -> None:
        self._cache = cache
        self._census = census
        self._poller = poller
        self._settings = settings
        self._desired: dict[JobKey, DesiredObjects] = {}

    def problems(self, record: JobRecord) -> str:
        """Why the operator cannot do what the manifest asks for; "" when it can."""
        return record.problems or self._desired_objects(record).problems

    def observe(self, record: JobRecord, now: float) -> Observation:
        """Of a job without problems."""
        job = record.job
        assert job is not None
        redis = self._census.find(record, "StatefulSet", store_name(job))
        shared = {key: self._is_current(record, *entry) for key, entry in self._desired_objects(record).objects.items()}
        if manages_store(job):
            # Nobody may list Secrets; that of a Redis was made before its set.
            shared[STORE_SECRET] = redis is not None
        return Observation(
            now=now,
            job=job,
            memory=memory_of(record.status),
            deleting_since=record.deleting_since,
            finalizer=FINALIZER in record.finalizers,
            shared=shared,
            store_replicas=redis.replicas if redis is not None else None,
            store_pods=len(self._cache.store_pods(record.key)),
            pods=self._cache.pods_of(record),
            store=self._poller.view(record.key),
            store_loads=self._poller.loads(record.key),
        )

    def forget(self, key: JobKey) -> None:
        """The job is gone."""
        self._desired.pop(key, None)

    def _is_current(self, record: JobRecord, kind: str, name: str, template: str) -> bool:
        owned = self._census.find(record, kind, name)
        return owned is not None and owned.template == template

    def _desired_objects(self, record: JobRecord) -> DesiredObjects:
        known = self._desired.get(record.key)
        desired = last_desired_workers(record.status)
        if known is not None and (known.uid, known.generation, known.desired) == (
            record.uid,
            record.generation,
            desired,
        ):
            return known
        rendered = self._desired[record.key] = self._render(record, desired)
        return rendered

    def _render(self, record: JobRecord, desired: int) -> DesiredObjects:
        """All of a job's manifests are tried, so that it is refused whole rather than half-way."""
        job = record.job
        assert job is not None
        try:
            objects = shared_objects(job, record.uid, self._settings, desired)
            self._try_pods(job, record.uid)
        except InputError as error:
            return DesiredObjects(record.uid, record.generation, desired, {}, str(error))
        entries = {
            key: (body["kind"], body["metadata"]["name"], body["metadata"]["annotations"][TEMPLATE_ANNOTATION])
            for key, body in objects.items()
        }
        return DesiredObjects(record.uid, record.generation, desired, entries)

    def _try_pods(self, job: RolloutJob, uid: str) -> None:
        last = max(0, job.spec.workers.replicas - 1)
        rank = job.spec.workers.parallelism.nodes - 1
        worker_pod(job, uid, self._settings, self._settings.worker_image, index=last, rank=rank, attempt=0)
        if job.spec.mode == "batch":
            driver_pod(job, uid, self._settings, self._settings.worker_image, attempt=0)
        if manages_store(job):
            store_stateful_set(job, uid, self._settings, 1)
