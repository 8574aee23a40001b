"""The census: lists the jobs' shared objects, which are not watched, and checks that the watch has missed no change.

It lists metadata at the start and every CENSUS_SECONDS. Answers to the operator's own writes update its data in
between. So a job at rest causes no calls of its own, and an object that a user has deleted is created again after the
next census. The census also finds jobs and pods that were deleted while the watch was interrupted.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openseer_core.errors import OpenseerError
from openseer_core.plan.observation import Refusal
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.objects.names import JOB_LABEL, MANAGED_SELECTOR, REPLICAS_ANNOTATION, TEMPLATE_ANNOTATION
from openseer_operator.objects.reading import JobKey, JobRecord, owner_uid, pod_identity, version_of, whole_number

CENSUS_SECONDS = 300.0
"""Interval of the census, in seconds."""
RECOUNT_SECONDS = 5.0
"""Delay of a requested census, in seconds; it serves all requests during the delay."""
LATE_SECONDS = 30.0
"""Time within which the watch must report the versions found by a census, in seconds; after it the watch
counts as stuck."""
RETRY_SECONDS = 10.0
"""Pause after a failed census, in seconds."""
KINDS = (
    "ServiceAccount",
    "ConfigMap",
    "Service",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "StatefulSet",
    "Deployment",
)
"""Kinds of shared objects. Secrets are missing: a permission to list them would also permit reading them."""

log = logging.getLogger(__name__)

ObjectKey = tuple[str, str]
"""Kind and name of an object."""


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """A shared object. `owner`: uid of its job; `template`: hash of its manifest; `replicas`: of the StatefulSet of a
    managed Redis, from its annotation; `uid`: the object's own uid."""

    owner: str
    template: str
    replicas: int | None = None
    uid: str = ""


class Census:
    """The shared objects of all jobs. `changed`: called with a job's key when a census finds a difference."""

    def __init__(self, api: Api, cache: Cache, namespaces: Sequence[str], changed: Callable[[JobKey], None]) -> None:
        self._api = api
        self._cache = cache
        self._namespaces = namespaces
        self._changed = changed
        self._objects: dict[JobKey, dict[ObjectKey, OwnedObject]] = {}
        self._touched: set[JobKey] = set()
        self._refusals: dict[JobKey, tuple[Refusal, ...]] = {}
        self._secrets: dict[JobKey, tuple[str, float]] = {}
        self._volume_problems: dict[JobKey, tuple[str, float]] = {}
        self._recount = asyncio.Event()
        self.stuck = ""
        """A text about changes that the watch has missed, for /healthz; "" if there are none."""

    # ---- results

    def find(self, job: JobRecord, kind: str, name: str) -> OwnedObject | None:
        """The job's own object; None if there is none, or it belongs to an earlier job of the same name."""
        found = self._objects.get(job.key, {}).get((kind, name))
        return found if found is not None and found.owner == job.uid else None

    def put(self, raw: Mapping[str, Any], kind: str) -> None:
        """Stores an object from the API server's answer to one of the operator's writes."""
        entry = _entry(raw, kind)
        if entry is not None:
            key, name, owned = entry
            self._touched.add(key)
            self._objects.setdefault(key, {})[name] = owned

    def drop(self, key: JobKey, kind: str, name: str) -> None:
        """Removes a deleted object."""
        self._touched.add(key)
        self._objects.get(key, {}).pop((kind, name), None)

    def secret_seen_at(self, job: JobRecord) -> float:
        """Time at which the Secret of the job's managed Redis was last known to exist (seconds since the epoch), 0 if
        it never was. The census does not list Secrets."""
        uid, at = self._secrets.get(job.key, ("", 0.0))
        return at if uid == job.uid else 0.0

    def see_secret(self, job: JobRecord, now: float) -> None:
        """Records that the Secret of the job's managed Redis exists at the time `now`."""
        self._secrets[job.key] = job.uid, now

    def refusals(self, key: JobKey) -> tuple[Refusal, ...]:
        """The objects of the job that Kubernetes refused to create in the last step."""
        return self._refusals.get(key, ())

    def put_refusals(self, key: JobKey, refusals: tuple[Refusal, ...]) -> None:
        """Stores the objects of the job that Kubernetes refused to create in this step."""
        if refusals:
            self._refusals[key] = refusals
        else:
            self._refusals.pop(key, None)

    def volume_problem(self, key: JobKey) -> tuple[str, float]:
        """Why the last attempt to enlarge the volume of the job's Redis failed, "" if it succeeded; and the time of the
        attempt (seconds since the epoch)."""
        return self._volume_problems.get(key, ("", 0.0))

    def put_volume_problem(self, key: JobKey, problem: str, now: float) -> None:
        """Stores the result of an attempt to enlarge the volume: the problem, "" after a success."""
        if problem:
            self._volume_problems[key] = problem, now
        else:
            self._volume_problems.pop(key, None)

    def forget(self, key: JobKey) -> None:
        """Drops the data of a deleted job."""
        self._objects.pop(key, None)
        self._refusals.pop(key, None)
        self._secrets.pop(key, None)
        self._volume_problems.pop(key, None)

    def recount_soon(self) -> None:
        """Requests a census, because the watch may have missed deletions."""
        self._recount.set()

    # ---- the census

    async def fill(self) -> None:
        """Fills the cache with all jobs and pods before the first step, and lists the shared objects."""
        async for page in self._api.pages("RolloutJob", self._namespaces):
            for raw in page:
                self._cache.put_job(raw)
        async for page in self._api.pages("Pod", self._namespaces, JOB_LABEL):
            for raw in page:
                self._cache.put_pod(raw)
        await self._count_shared()

    async def run(self) -> None:
        """Takes a census every CENSUS_SECONDS, and on request, until cancelled."""
        pause = CENSUS_SECONDS
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._recount.wait()
                await asyncio.sleep(RECOUNT_SECONDS)
            except TimeoutError:
                pass
            self._recount.clear()
            try:
                await self._count_watched()
                await self._count_shared()
                pause = CENSUS_SECONDS
            except OpenseerError as error:
                log.warning("census: %s", error)
                pause = RETRY_SECONDS
            except Exception:  # the census must continue: only it finds changes that the watch has missed
                log.exception("census: this count failed")
                pause = RETRY_SECONDS

    async def _count_shared(self) -> None:
        self._touched.clear()
        found: dict[JobKey, dict[ObjectKey, OwnedObject]] = {}
        for kind in KINDS:
            async for page in self._api.pages(kind, self._namespaces, MANAGED_SELECTOR, metadata_only=True):
                for raw in page:
                    entry = _entry(raw, kind)
                    if entry is not None:
                        found.setdefault(entry[0], {})[entry[1]] = entry[2]
        for key in self._objects.keys() | found.keys():
            if key not in self._touched and self._objects.get(key) != found.get(key):
                self._replace(key, found.get(key))

    def _replace(self, key: JobKey, found: dict[ObjectKey, OwnedObject] | None) -> None:
        if found is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = found
        self._changed(key)

    async def _count_watched(self) -> None:
        """Lists jobs and pods: drops deleted ones from the cache, and checks that the watch reports newer versions."""
        jobs, pods = self._cache.uids()
        listed = await self._versions("RolloutJob", "") | await self._versions("Pod", JOB_LABEL)
        gone = [self._cache.drop_job(key, uid) for uid, (key, _) in jobs.items() if uid not in listed]
        gone += [self._cache.drop_pod(key, name, uid) for uid, (key, name, _) in pods.items() if uid not in listed]
        for key in gone:
            if key is not None:
                self._changed(key)
        late = self._late(listed)
        if late:
            await asyncio.sleep(LATE_SECONDS)
            late &= self._late(listed)
        self.stuck = f"the watch has not reported {len(late)} changed objects, such as {min(late)}" if late else ""

    async def _versions(self, kind: str, selector: str) -> dict[str, tuple[str, int]]:
        """Name and version, by uid, of every job, or of every pod that the cache stores (pods with a role in a job)."""
        found: dict[str, tuple[str, int]] = {}
        async for page in self._api.pages(kind, self._namespaces, selector, metadata_only=True):
            for raw in page:
                meta = raw["metadata"]
                if kind == "Pod" and pod_identity(meta) is None:
                    continue
                found[meta["uid"]] = (f"{kind} {meta['namespace']}/{meta['name']}", version_of(raw))
        return found

    def _late(self, listed: Mapping[str, tuple[str, int]]) -> set[str]:
        """Names of the listed objects with an older version in the cache, without those that were deleted since."""
        known_jobs, known_pods = self._cache.uids()
        known = {uid: version for uid, (_, version) in known_jobs.items()}
        known |= {uid: version for uid, (*_, version) in known_pods.items()}
        return {
            name
            for uid, (name, version) in listed.items()
            if known.get(uid, 0) < version and not self._cache.is_deleted(uid)
        }


def _entry(raw: Mapping[str, Any], kind: str) -> tuple[JobKey, ObjectKey, OwnedObject] | None:
    meta = raw["metadata"]
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    job = labels.get(JOB_LABEL)
    if job is None or meta.get("deletionTimestamp"):
        return None
    replicas = whole_number(annotations.get(REPLICAS_ANNOTATION))
    owned = OwnedObject(owner_uid(meta), annotations.get(TEMPLATE_ANNOTATION, ""), replicas, meta["uid"])
    return (meta["namespace"], job), (kind, meta["name"]), owned
