"""Does what a plan asks for. Whatever it gets from the API server is known at once, so nothing is done twice."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import store_name
from openseer_core.plan.actions import (
    Action,
    AddFinalizer,
    Announce,
    ApplyShared,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteStore,
    Purge,
    RemoveFinalizer,
    ScaleStore,
    Stamp,
)
from openseer_operator.control.observe import STORE_SECRET
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.kube.rate_limiter import RateLimiter
from openseer_operator.objects.managed_redis import store_secret, store_stateful_set
from openseer_operator.objects.names import REPLICAS_ANNOTATION, stamp_annotations
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import JobRecord, JsonObject, owner_uid
from openseer_operator.objects.shared import shared_objects
from openseer_operator.objects.status import last_desired_workers
from openseer_operator.settings import FINALIZER, OperatorSettings

CONCURRENT_CALLS = 16
"""Calls for one job that run at the same time."""
PASSWORD_BYTES = 24

A = TypeVar("A")


class NotOursError(KubeApiError):
    """The name of an object is taken by one that is not the job's."""


@dataclass(frozen=True, slots=True)
class ApplyTarget:
    """The job that actions are for. `image`: of its workers and driver; `now`: seconds since the epoch."""

    record: JobRecord
    job: RolloutJob
    image: str
    now: float

    @property
    def namespace(self) -> str:
        return self.record.key[0]


class Applier:
    """All calls that change anything but a job's status. Raises the first failure of a stage, the whole stage tried."""

    def __init__(
        self, api: Api, cache: Cache, census: Census, poller: StorePoller, events: Events, settings: OperatorSettings
    ) -> None:
        self._api = api
        self._cache = cache
        self._census = census
        self._poller = poller
        self._events = events
        self._settings = settings
        self._stamp_limiter = RateLimiter(settings.stamps)

    async def apply(self, target: ApplyTarget, actions: Sequence[Action]) -> float | None:
        """Stage after stage; the events come last, whatever fails.

        Returns in how many seconds a stamp that had to wait is due.
        """
        try:
            await self._apply_prerequisites(target, actions)
            stamps = [action for action in actions if isinstance(action, Stamp)]
            waits = {action.uid: self._stamp_limiter.wait(action.uid, target.now) for action in stamps}
            await self._stage(target, actions, CreatePod, self._create_pod)
            await self._stage(target, actions, DeletePod, self._delete_pod)
            await self._stage(target, [action for action in stamps if not waits[action.uid]], Stamp, self._stamp)
            await self._apply_removals(target, actions)
        except NotOursError as error:
            await self._events.announce(target.record, Announce(True, "NameTaken", str(error)))
            raise
        finally:
            for action in actions:
                if isinstance(action, Announce):
                    await self._events.announce(target.record, action)
        return min(filter(None, waits.values()), default=None)

    # ---- stages

    async def _apply_prerequisites(self, target: ApplyTarget, actions: Sequence[Action]) -> None:
        """What pods need, the Redis last: its StatefulSet needs its service account and Secret."""
        await self._stage(target, actions, AddFinalizer, self._add_finalizer)
        if any(isinstance(action, ApplyShared) for action in actions):
            bodies = shared_objects(
                target.job, target.record.uid, self._settings, last_desired_workers(target.record.status)
            )
            await self._stage(target, actions, ApplyShared, partial(self._apply_shared, bodies))
        await self._stage(
            target, [action for action in actions if action == ScaleStore(1)], ScaleStore, self._scale_store
        )

    async def _apply_removals(self, target: ApplyTarget, actions: Sequence[Action]) -> None:
        """Each stage needs those before it."""
        await self._stage(
            target, [action for action in actions if action == ScaleStore(0)], ScaleStore, self._scale_store
        )
        await self._stage(target, actions, DeleteStore, self._delete_store)
        await self._stage(target, actions, Purge, self._purge)
        await self._stage(target, actions, RemoveFinalizer, self._remove_finalizer)
        await self._stage(target, actions, DeleteJob, self._delete_job)

    async def _stage(
        self,
        target: ApplyTarget,
        actions: Iterable[Action],
        kind: type[A],
        apply_action: Callable[[ApplyTarget, A], Awaitable[None]],
    ) -> None:
        """All actions of one kind, concurrently."""
        gate = asyncio.Semaphore(CONCURRENT_CALLS)

        async def run(action: A) -> None:
            async with gate:
                await apply_action(target, action)

        selected = [action for action in actions if isinstance(action, kind)]
        for outcome in await asyncio.gather(*map(run, selected), return_exceptions=True):
            if outcome is not None:
                raise outcome

    # ---- pods

    async def _create_pod(self, target: ApplyTarget, action: CreatePod) -> None:
        job, uid, settings = target.job, target.record.uid, self._settings
        if action.index is None:
            body = driver_pod(job, uid, settings, target.image, attempt=action.attempt)
        else:
            body = worker_pod(
                job,
                uid,
                settings,
                target.image,
                index=action.index,
                rank=action.rank,
                attempt=action.attempt,
                avoid=action.avoid,
            )
        self._cache.put_pod(await self._create(target, "Pod", body))

    async def _create(self, target: ApplyTarget, kind: str, body: JsonObject) -> JsonObject:
        """The object; one of that name that is the job's own already is as good."""
        try:
            return await self._api.create(kind, target.namespace, body)
        except KubeConflictError:
            found = await self._api.get(kind, target.namespace, body["metadata"]["name"])
        if owner_uid(found["metadata"]) == target.record.uid:
            return found
        name = found["metadata"]["name"]
        raise NotOursError(f"{kind} {name} is not of this job; it is made once that one is deleted")

    async def _delete_pod(self, target: ApplyTarget, action: DeletePod) -> None:
        try:
            answer = await self._api.delete("Pod", target.namespace, action.name, action.uid, at_once=action.force)
        except (NotThereError, KubeConflictError):  # gone, or another pod has its name
            self._cache.drop_pod(target.record.key, action.name, action.uid)
            return
        if answer.get("kind") == "Pod":
            self._cache.put_pod(answer)

    async def _stamp(self, target: ApplyTarget, action: Stamp) -> None:
        body: JsonObject = {"metadata": {"uid": action.uid, "annotations": stamp_annotations(action.busy)}}
        try:
            self._cache.put_pod(await self._api.merge("Pod", target.namespace, action.name, body))
        except (NotThereError, KubeConflictError):
            self._cache.drop_pod(target.record.key, action.name, action.uid)

    # ---- shared objects

    async def _apply_shared(self, bodies: Mapping[str, JsonObject], target: ApplyTarget, action: ApplyShared) -> None:
        if action.key == STORE_SECRET:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            await self._create(target, "Secret", store_secret(target.job, target.record.uid, password))
            return
        body = bodies[action.key]
        self._census.put(await self._api.apply(body["kind"], body), body["kind"])

    async def _scale_store(self, target: ApplyTarget, action: ScaleStore) -> None:
        body = store_stateful_set(target.job, target.record.uid, self._settings, action.replicas)
        body["metadata"]["annotations"][REPLICAS_ANNOTATION] = str(action.replicas)
        self._census.put(await self._api.apply("StatefulSet", body), "StatefulSet")

    async def _delete_store(self, target: ApplyTarget, action: DeleteStore) -> None:
        """Its volume goes with the set, by the set's own policy."""
        name = store_name(target.job)
        with suppress(NotThereError):
            await self._api.delete("StatefulSet", target.namespace, name)
        self._census.drop(target.record.key, "StatefulSet", name)

    # ---- the job

    async def _add_finalizer(self, target: ApplyTarget, action: AddFinalizer) -> None:
        await self._set_finalizers(target.record, [*target.record.finalizers, FINALIZER])

    async def _remove_finalizer(self, target: ApplyTarget, action: RemoveFinalizer) -> None:
        await self.remove_finalizer(target.record)

    async def remove_finalizer(self, record: JobRecord) -> None:
        """Takes our finalizer off the job."""
        with suppress(NotThereError):
            await self._set_finalizers(record, [name for name in record.finalizers if name != FINALIZER])

    async def _set_finalizers(self, record: JobRecord, names: list[str]) -> None:
        """A list is replaced whole, so only in the version that was read."""
        key = record.key
        newest = self._cache.job(key) or record
        version = str(newest.version)
        body: JsonObject = {"metadata": {"uid": newest.uid, "resourceVersion": version, "finalizers": names}}
        self._cache.put_job(await self._api.merge("RolloutJob", *key, body))

    async def _purge(self, target: ApplyTarget, action: Purge) -> None:
        await self._poller.purge(target.record.key)

    async def _delete_job(self, target: ApplyTarget, action: DeleteJob) -> None:
        with suppress(NotThereError, KubeConflictError):
            await self._api.delete("RolloutJob", *target.record.key, target.record.uid)
