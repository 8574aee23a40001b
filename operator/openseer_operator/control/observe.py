"""Cache, census and store of one job → what `plan` looks at."""

from collections.abc import Mapping
from dataclasses import dataclass

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import manages_store, store_name
from openseer_core.plan.observation import Observation
from openseer_operator.control.stores import Stores
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.objects.names import TEMPLATE_ANNOTATION
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import JobRecord, Key
from openseer_operator.objects.shared import shared_objects, store_set
from openseer_operator.objects.status import memory_of, wanted_workers
from openseer_operator.settings import FINALIZER, OperatorSettings

STORE_SECRET = "storeSecret"
"""Key of the Secret of a managed Redis among the shared objects."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The shared objects of one generation of a job with so many workers desired: kind, name and hash by key; or why
    there can be none."""

    uid: str
    generation: int
    desired: int
    objects: Mapping[str, tuple[str, str, str]]
    problems: str = ""


class Observer:
    """Manifests are rendered once per generation of a job, to be compared by their hashes after that."""

    def __init__(self, cache: Cache, census: Census, stores: Stores, settings: OperatorSettings) -> None:
        self._cache = cache
        self._census = census
        self._stores = stores
        self._settings = settings
        self._wanted: dict[Key, Wanted] = {}

    def problems(self, record: JobRecord) -> str:
        """Why the operator cannot do what the manifest asks for; "" when it can."""
        return record.problems or self._wants(record).problems

    def observe(self, record: JobRecord, now: float) -> Observation:
        """Of a job without problems."""
        job = record.job
        assert job is not None
        redis = self._census.held(record, "StatefulSet", store_name(job))
        shared = {key: self._there(record, *entry) for key, entry in self._wants(record).objects.items()}
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
            store=self._stores.view(record.key),
        )

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._wanted.pop(key, None)

    def _there(self, record: JobRecord, kind: str, name: str, template: str) -> bool:
        held = self._census.held(record, kind, name)
        return held is not None and held.template == template

    def _wants(self, record: JobRecord) -> Wanted:
        known = self._wanted.get(record.key)
        desired = wanted_workers(record.status)
        if known is not None and (known.uid, known.generation, known.desired) == (
            record.uid,
            record.generation,
            desired,
        ):
            return known
        wanted = self._wanted[record.key] = self._rendered(record, desired)
        return wanted

    def _rendered(self, record: JobRecord, desired: int) -> Wanted:
        """All of a job's manifests are tried, so that it is refused whole rather than half-way."""
        job = record.job
        assert job is not None
        try:
            objects = shared_objects(job, record.uid, self._settings, desired)
            self._try_pods(job, record.uid)
        except InputError as error:
            return Wanted(record.uid, record.generation, desired, {}, str(error))
        entries = {
            key: (body["kind"], body["metadata"]["name"], body["metadata"]["annotations"][TEMPLATE_ANNOTATION])
            for key, body in objects.items()
        }
        return Wanted(record.uid, record.generation, desired, entries)

    def _try_pods(self, job: RolloutJob, uid: str) -> None:
        last = max(0, job.spec.workers.replicas - 1)
        rank = job.spec.workers.parallelism.nodes - 1
        worker_pod(job, uid, self._settings, self._settings.worker_image, index=last, rank=rank, attempt=0)
        if job.spec.mode == "batch":
            driver_pod(job, uid, self._settings, self._settings.worker_image, attempt=0)
        if manages_store(job):
            store_set(job, uid, self._settings, 1)
