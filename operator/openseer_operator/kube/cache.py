"""The newest known version of every job and pod, from the watch and the answers to the operator's own writes."""

from collections import OrderedDict
from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any

from openseer_core.plan.observation import Pod
from openseer_operator.objects.reading import (
    STORE_ROLE,
    JobKey,
    JobRecord,
    PodRecord,
    job_key,
    read_job,
    read_pod,
    version_of,
)

MOST_DELETED_UIDS = 8192
"""Number of remembered uids of deleted objects: a late answer about a deleted object must not restore it."""


class Cache:
    """The cached jobs and pods; an older version never replaces a newer one. `put_…` and `drop_…` return the job's key
    if they changed the cache, else None."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, JobRecord] = {}
        self._pods: dict[JobKey, dict[str, PodRecord]] = {}
        self._deleted_uids: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._jobs)

    def job(self, key: JobKey) -> JobRecord | None:
        return self._jobs.get(key)

    def keys(self) -> Collection[JobKey]:
        """Keys of all jobs."""
        return self._jobs.keys()

    def pods(self, key: JobKey) -> Iterator[PodRecord]:
        """All pods with the job's label, including pods of an earlier job of the same name."""
        yield from self._pods.get(key, {}).values()

    def pods_of(self, job: JobRecord) -> tuple[Pod, ...]:
        """The job's own workers and driver."""
        return tuple(record.pod for record in self.pods(job.key) if record.owner == job.uid)

    def store_pods(self, key: JobKey, owners: Container[str]) -> list[Pod]:
        """The pods of a managed Redis that are owned by StatefulSets with these uids."""
        return [record.pod for record in self.pods(key) if record.role == STORE_ROLE and record.owner in owners]

    def put_job(self, raw: Mapping[str, Any]) -> JobKey | None:
        known = self._jobs.get(job_key(raw))
        if raw["metadata"]["uid"] in self._deleted_uids or (known is not None and known.version >= version_of(raw)):
            return None
        record = read_job(raw, known)
        self._jobs[record.key] = record
        return record.key

    def drop_job(self, key: JobKey, uid: str) -> JobKey | None:
        self._mark_deleted(uid)
        known = self._jobs.get(key)
        if known is None or known.uid != uid:
            return None
        del self._jobs[key]
        return key

    def put_pod(self, raw: Mapping[str, Any]) -> JobKey | None:
        record = read_pod(raw)
        if record is None or record.pod.uid in self._deleted_uids:
            return None
        pods = self._pods.setdefault(record.key, {})
        known = pods.get(record.pod.name)
        if known is not None and known.version >= record.version:
            return None
        pods[record.pod.name] = record
        return record.key

    def drop_pod(self, key: JobKey, name: str, uid: str) -> JobKey | None:
        self._mark_deleted(uid)
        pods = self._pods.get(key, {})
        known = pods.get(name)
        if known is None or known.pod.uid != uid:
            return None
        del pods[name]
        if not pods:
            del self._pods[key]
        return key

    def uids(self) -> tuple[dict[str, tuple[JobKey, int]], dict[str, tuple[JobKey, str, int]]]:
        """The (key, version) of every job by uid, and the (key, name, version) of every pod by uid."""
        jobs = {record.uid: (key, record.version) for key, record in self._jobs.items()}
        pods = {
            record.pod.uid: (key, name, record.version)
            for key, records in self._pods.items()
            for name, record in records.items()
        }
        return jobs, pods

    def is_deleted(self, uid: str) -> bool:
        """Whether the object is remembered as deleted."""
        return uid in self._deleted_uids

    def _mark_deleted(self, uid: str) -> None:
        self._deleted_uids[uid] = None
        if len(self._deleted_uids) > MOST_DELETED_UIDS:
            self._deleted_uids.popitem(last=False)
