"""The jobs that the gateway serves, as the cluster has them: looked up by name, and cached for a moment."""

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from openseer_api.cluster.client import Json, Kube, KubeError
from openseer_api.cluster.ttl_cache import TTLCache
from openseer_core.errors import InputError, OpenseerError
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import url_in, url_reference

FOUND_SECONDS = 5.0
"""A job that was found is not looked up again for so long."""
MISSED_SECONDS = 1.0
"""One that was not found is looked up again sooner: it may just have been made."""
MOST_JOBS = 4096
"""Jobs kept, those that are not there included."""

log = logging.getLogger(__name__)


class JobsUnavailable(OpenseerError):
    """Jobs, or a job's store, cannot be looked up in Kubernetes at the moment (HTTP 503)."""

    retryable = True


@dataclass(frozen=True, slots=True)
class ServedJob:
    """A job that serves trainers. `uid`: of the object; one made anew under the same name has another."""

    uid: str
    job: RolloutJob

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.job.namespace, self.job.name


class KubeJobs:
    """`watched`: namespaces whose jobs are served; empty: all of them."""

    def __init__(self, kube: Kube, watched: Sequence[str] = ()) -> None:
        self._kube = kube
        self._watched = frozenset(watched)
        self._found = TTLCache[tuple[str, str], ServedJob | None](_good_for, MOST_JOBS)

    async def find(self, namespace: str, name: str) -> ServedJob | None:
        """The job, None where none of that name serves trainers. Raises JobsUnavailable.

        The caller has validated both names: they become part of a path.
        """
        if self._watched and namespace not in self._watched:
            return None
        return await self._found.get((namespace, name), lambda: self._look_up(namespace, name))

    async def all(self) -> AsyncIterator[ServedJob]:
        """Every job that serves trainers now. Raises JobsUnavailable."""
        for namespace in sorted(self._watched) or (None,):
            try:
                async for page in self._kube.pages(_path(namespace)):
                    for raw in page:
                        served = _served(raw)
                        if served is not None:
                            self._found.put(served.key, served)
                            yield served
            except KubeError as error:
                raise JobsUnavailable(f"jobs cannot be listed just now: {error}") from None

    async def store_url(self, served: ServedJob) -> str:
        """Raises JobsUnavailable, also while the operator has not made the job's Redis yet."""
        job = served.job
        reference = url_reference(job)
        if reference is None:
            return job.spec.store.url or ""
        try:
            secret = await self._kube.get(f"/api/v1/namespaces/{job.namespace}/secrets/{reference.name}")
        except KubeError as error:
            raise JobsUnavailable(f"the job's store cannot be looked up just now: {error}") from None
        if secret is None:
            raise JobsUnavailable(f"the job's store is not there yet: no Secret {reference.name}")
        try:
            return url_in(secret.get("data") or {}, reference)
        except InputError as error:
            raise JobsUnavailable(f"the job's store is not known: {error}") from None

    async def _look_up(self, namespace: str, name: str) -> ServedJob | None:
        try:
            raw = await self._kube.get(f"{_path(namespace)}/{name}")
        except KubeError as error:
            raise JobsUnavailable(f"the job cannot be looked up just now: {error}") from None
        return _served(raw) if raw is not None else None


def _path(namespace: str | None) -> str:
    within = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{API_VERSION}{within}/rolloutjobs"


def _served(raw: Json) -> ServedJob | None:
    """None for a job of another mode, one that is being deleted, and one that the operator refuses, too."""
    meta: Json = raw["metadata"]
    spec: Json = raw.get("spec") or {}
    if spec.get("mode") != "serve" or meta.get("deletionTimestamp"):
        return None
    document: Json = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec}
    try:
        return ServedJob(meta["uid"], parse_job(document, "manifest"))
    except InputError as error:
        log.warning("%s/%s is not served: %s", meta["namespace"], meta["name"], error)
        return None


def _good_for(found: ServedJob | None) -> float:
    return FOUND_SECONDS if found is not None else MISSED_SECONDS
