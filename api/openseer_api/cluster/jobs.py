"""Look-ups of the RolloutJobs that the gateway serves or shows, cached for FOUND_SECONDS or MISSED_SECONDS."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openseer_api.cluster.client import Json, Kube, KubeError
from openseer_api.cluster.ttl_cache import TTLCache
from openseer_core.errors import InputError, OpenseerError
from openseer_core.manifest.generation import JobMode
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import manages_store, store_name
from openseer_process.store_access import StoreAccess

FOUND_SECONDS = 5.0
"""Cache TTL of a job that was found and has a store, in seconds."""
MISSED_SECONDS = 1.0
"""Cache TTL of a job that was not found, or has no store yet, in seconds; shorter, because that may change soon."""
MOST_JOBS = 4096
"""Limit of cached look-ups, including those of jobs that do not exist."""
FORBIDDEN = 403

log = logging.getLogger(__name__)


class JobsUnavailable(OpenseerError):
    """Jobs, or a job's store, cannot be looked up in Kubernetes at the moment (HTTP 503)."""

    retryable = True


@dataclass(frozen=True, slots=True)
class ServedJob:
    """A job that serves trainers, or one of mode batch that has not ended.

    `uid`: of the object; a new object of the same name has another uid. `secret`: name of the Secret of a managed
    Redis, "" until the operator has created it.
    """

    uid: str
    job: RolloutJob
    secret: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.job.namespace, self.job.name

    @property
    def has_begun(self) -> bool:
        """Whether the address of its store is known."""
        return bool(self.secret) or not manages_store(self.job)


class KubeJobs:
    """Finds jobs by the Kubernetes API. `watched`: namespaces whose jobs are served; empty: all. `access`: keys and
    rules for the access to their stores. `mode`: only jobs of this mode are found; of mode batch, only those that have
    not ended."""

    def __init__(
        self, kube: Kube, watched: Sequence[str] = (), access: StoreAccess | None = None, *, mode: JobMode = "serve"
    ) -> None:
        self._kube = kube
        self._mode: JobMode = mode
        self._access = access or StoreAccess(Path())
        self._watched = frozenset(watched)
        self._found = TTLCache[tuple[str, str], ServedJob | None](_good_for, MOST_JOBS)

    async def find(self, namespace: str, name: str) -> ServedJob | None:
        """Returns the job; None if no job has that name and mode. Raises JobsUnavailable.

        The caller has validated both names: they become part of a path.
        """
        if self._watched and namespace not in self._watched:
            return None
        return await self._found.get((namespace, name), lambda: self._look_up(namespace, name))

    async def all(self) -> AsyncIterator[ServedJob]:
        """Yields every present job of the mode, and caches it. Raises JobsUnavailable."""
        for namespace in sorted(self._watched) or (None,):
            try:
                async for page in self._kube.pages(_path(namespace)):
                    for raw in page:
                        served = _served(raw, self._mode)
                        if served is not None:
                            self._found.put(served.key, served)
                            yield served
            except KubeError as error:
                raise JobsUnavailable(f"jobs cannot be listed at the moment: {error}") from None

    async def store_url(self, served: ServedJob) -> str:
        """Returns the URL of a job's store. Raises JobsUnavailable, also before the operator has created the job's
        Redis, and StoreForbiddenError for a Secret that the gateway may not read."""
        job = served.job
        if not served.has_begun:
            raise JobsUnavailable("the job's store does not exist yet: the operator has not created it")
        try:
            return await self._access.url(job, served.uid, served.secret, partial(self._read_secret, job.namespace))
        except InputError as error:
            raise JobsUnavailable(f"the job's store cannot be determined: {error}") from None

    async def _read_secret(self, namespace: str, name: str) -> Mapping[str, str]:
        try:
            secret = await self._kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except KubeError as error:
            if error.status == FORBIDDEN:
                raise self._access.secret_forbidden(namespace, name) from None
            raise JobsUnavailable(f"the job's store cannot be looked up at the moment: {error}") from None
        if secret is None:
            raise JobsUnavailable(f"the job's store does not exist yet: no Secret {name}")
        return secret.get("data") or {}

    async def _look_up(self, namespace: str, name: str) -> ServedJob | None:
        try:
            raw = await self._kube.get(f"{_path(namespace)}/{name}")
        except KubeError as error:
            raise JobsUnavailable(f"the job cannot be looked up at the moment: {error}") from None
        return _served(raw, self._mode) if raw is not None else None


def _path(namespace: str | None) -> str:
    within = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{API_VERSION}{within}/rolloutjobs"


def _served(raw: Json, mode: JobMode) -> ServedJob | None:
    """Parses a RolloutJob object. Returns None for a job that is of another mode, being deleted, invalid, or of mode
    batch and ended."""
    meta: Json = raw["metadata"]
    spec: Json = raw.get("spec") or {}
    over = meta.get("deletionTimestamp") or (mode == "batch" and (raw.get("status") or {}).get("completionTime"))
    if spec.get("mode", "batch") != mode or over:
        return None
    # Only the status field that the autoscaling route needs: the rest is long and unused here.
    status: Json = {"backlog": (raw.get("status") or {}).get("backlog")}
    document: Json = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec, "status": status}
    try:
        job = parse_job(document, "manifest")
    except InputError as error:
        log.warning("%s/%s is not served: %s", meta["namespace"], meta["name"], error)
        return None
    status: Json = raw.get("status") or {}
    # Earlier operators, which generated random passwords, did not write the Secret's name into the status.
    unnamed = store_name(job) if status.get("image") else ""
    return ServedJob(meta["uid"], job, status.get("storeSecret") or unnamed)


def _good_for(found: ServedJob | None) -> float:
    return FOUND_SECONDS if found is not None and found.has_begun else MISSED_SECONDS
