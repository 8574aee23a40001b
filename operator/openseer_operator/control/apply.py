"""Carries out a plan's actions. The API server's answers update the caches at once, so the next step repeats no
action."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import derived_password, derived_secret_name, store_name
from openseer_core.plan.actions import (
    Action,
    AddFinalizer,
    Announce,
    ApplyShared,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteStore,
    EndSidecars,
    InspectStore,
    Purge,
    RemoveFinalizer,
    ScaleStore,
    Stamp,
)
from openseer_core.plan.observation import Refusal
from openseer_operator.control.observe import STORE_SECRET, is_to_run, standing_workers_of
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, KubeConflictError, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.kube.owned_objects import NotMadeError, OwnedObjects
from openseer_operator.kube.rate_limiter import RateLimiter
from openseer_operator.kube.store_volume import resize_claim
from openseer_operator.objects.managed_redis import store_claim_name, store_secret, store_stateful_set
from openseer_operator.objects.names import (
    REPLICAS_ANNOTATION,
    TEMPLATE_ANNOTATION,
    TOO_SMALL,
    inherit,
    stamp_annotations,
)
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import JobKey, JobRecord, JsonObject
from openseer_operator.objects.shared import shared_objects
from openseer_operator.settings import FINALIZER, OperatorSettings

CONCURRENT_CALLS = 16
"""Limit of concurrent calls of the API server for one job."""

A = TypeVar("A")
Stage = Callable[[], Awaitable[list[BaseException]]]
"""A function that makes calls concurrently, and returns their errors."""
Stages = tuple[Stage, ...]
"""Stages in order; a stage runs only if all earlier ones succeeded."""


@dataclass(frozen=True, slots=True)
class ApplyTarget:
    """The job that the actions change. `image`: image of its workers and driver; `secret`: name of the Secret of a
    managed Redis; `now`: time of the reconcile step, in seconds since the epoch."""

    record: JobRecord
    job: RolloutJob
    image: str
    secret: str
    now: float

    @property
    def namespace(self) -> str:
        return self.record.key[0]


class Applier:
    """Makes all calls that change more than a job's status. A failed call prevents only the later stages of its
    chain."""

    def __init__(
        self, api: Api, cache: Cache, census: Census, poller: StorePoller, events: Events, settings: OperatorSettings
    ) -> None:
        self._api = api
        self._cache = cache
        self._census = census
        self._objects = OwnedObjects(api, census)
        self._poller = poller
        self._events = events
        self._settings = settings
        self._stamp_limiter = RateLimiter(settings.stamps)

    async def apply(
        self, target: ApplyTarget, actions: Sequence[Action], refused: tuple[Refusal, ...] = ()
    ) -> float | None:
        """Carries out the actions in this order: deletions of pods (whose workers drain), ends of sidecars, stamps,
        creations, the inspection of the managed Redis, removals, events.

        An object that Kubernetes refuses to create is no failure: the census stores the refusal for the next
        observation. It also stores `refused`: earlier refusals of objects that this step does not try again. Raises the
        first failure that is no refusal, after trying all actions that do not depend on it. Returns the seconds until
        the next delayed stamp is due; None if no stamp is delayed.
        """
        stamps, key = [action for action in actions if isinstance(action, Stamp)], target.record.key
        self._stamp_limiter.keep(key, {action.uid for action in stamps})
        waits = {action.uid: self._stamp_limiter.wait(key, action.uid, target.now) for action in stamps}
        stamps = [action for action in stamps if not waits[action.uid]]
        errors: list[BaseException] = []
        for chain in (
            (self._stage(target, actions, DeletePod, self._delete_pod),),
            (self._stage(target, actions, EndSidecars, self._end_sidecars),),
            (self._stage(target, stamps, Stamp, self._stamp),),
            self._creation(target, actions),
            (self._stage(target, actions, InspectStore, self._inspect_store),),
            self._removal(target, actions),
        ):
            errors += await _first_failure(chain)
        await self._announce(target, errors, actions, refused)
        failures = [error for error in errors if not isinstance(error, NotMadeError)]
        if failures:
            raise failures[0]
        return min(filter(None, waits.values()), default=None)

    def forget(self, key: JobKey) -> None:
        """Drops the data of a deleted job."""
        self._stamp_limiter.keep(key, ())

    async def _announce(
        self,
        target: ApplyTarget,
        errors: Sequence[BaseException],
        actions: Sequence[Action],
        refused: tuple[Refusal, ...],
    ) -> None:
        """Makes the plan's events, and one event for the first refusal that is new in this step. Stores all refusals
        for the next observation."""
        key = target.record.key
        known = self._census.refusals(key)
        refusals = (*(error.refusal for error in errors if isinstance(error, NotMadeError)), *refused)
        self._census.put_refusals(key, refusals)
        news = [refusal for refusal in refusals if refusal not in known][:1]
        announced = [action for action in actions if isinstance(action, Announce)]
        for event in [*announced, *map(refusal_event, news)]:
            await self._events.announce(target.record, event)

    # ---- stages

    def _creation(self, target: ApplyTarget, actions: Sequence[Action]) -> Stages:
        """The stages of creation. The driver is created before the workers, because a quota may have room for few
        pods."""
        bodies: Mapping[str, JsonObject] = {}
        if any(isinstance(action, ApplyShared) for action in actions):
            standing = standing_workers_of(target.record, self._cache)
            is_on = is_to_run(target.record)
            bodies = shared_objects(
                target.job, target.record.uid, self._settings, standing, secret=target.secret, runs=is_on
            )
        pods = [action for action in actions if isinstance(action, CreatePod)]
        drivers = [action for action in pods if action.index is None]
        workers = [action for action in pods if action.index is not None]
        return (
            self._stage(target, actions, AddFinalizer, self._add_finalizer),
            self._stage(target, actions, ApplyShared, partial(self._apply_shared, bodies)),
            self._stage(target, [each for each in actions if each == ScaleStore(1)], ScaleStore, self._scale_store),
            self._stage(target, drivers, CreatePod, self._create_pod),
            partial(self._create_workers, target, workers),
        )

    def _removal(self, target: ApplyTarget, actions: Sequence[Action]) -> Stages:
        """The stages of removal."""
        return (
            self._stage(target, [each for each in actions if each == ScaleStore(0)], ScaleStore, self._scale_store),
            self._stage(target, actions, DeleteStore, self._delete_store),
            self._stage(target, actions, Purge, self._purge),
            self._stage(target, actions, RemoveFinalizer, self._remove_finalizer),
            self._stage(target, actions, DeleteJob, self._delete_job),
        )

    def _stage(
        self,
        target: ApplyTarget,
        actions: Iterable[Action],
        kind: type[A],
        apply_action: Callable[[ApplyTarget, A], Awaitable[None]],
    ) -> Stage:
        """The stage that applies all actions of one kind concurrently."""
        return partial(_together, [partial(apply_action, target, each) for each in actions if isinstance(each, kind)])

    async def _create_workers(self, target: ApplyTarget, actions: Sequence[CreatePod]) -> list[BaseException]:
        """Creates workers until Kubernetes refuses one for a reason other than a taken name: it would refuse the rest,
        too. After a refusal in the previous step a single pod is tried first."""
        full = False

        async def create(action: CreatePod) -> None:
            nonlocal full
            if full:
                return
            try:
                await self._create_pod(target, action)
            except NotMadeError as error:
                full = full or not error.refusal.taken
                raise

        creations = [partial(create, action) for action in actions]
        first = 1 if self._census.refusals(target.record.key) else 0
        return [*await _together(creations[:first]), *await _together(creations[first:])]

    # ---- pods

    async def _create_pod(self, target: ApplyTarget, action: CreatePod) -> None:
        job, uid, settings = target.job, target.record.uid, self._settings
        if action.index is None:
            body = driver_pod(
                job, uid, settings, target.image, attempt=action.attempt, secret=target.secret, avoid=action.avoid
            )
        else:
            body = worker_pod(
                job,
                uid,
                settings,
                target.image,
                index=action.index,
                rank=action.rank,
                attempt=action.attempt,
                secret=target.secret,
                avoid=action.avoid,
            )
        self._cache.put_pod(await self._objects.create(target.record, "Pod", body))

    async def _delete_pod(self, target: ApplyTarget, action: DeletePod) -> None:
        try:
            answer = await self._api.delete("Pod", target.namespace, action.name, action.uid, at_once=action.force)
        except (NotThereError, KubeConflictError):  # the pod is gone, or another pod has its name
            self._cache.drop_pod(target.record.key, action.name, action.uid)
            return
        if answer.get("kind") == "Pod":
            self._cache.put_pod(answer)

    async def _end_sidecars(self, target: ApplyTarget, action: EndSidecars) -> None:
        """Ends a pod by a deadline in the past, so that the log stays on its node; a deletion would remove the log."""
        body: JsonObject = {"metadata": {"uid": action.uid}, "spec": {"activeDeadlineSeconds": 1}}
        try:
            self._cache.put_pod(await self._api.merge("Pod", target.namespace, action.name, body))
        except (NotThereError, KubeConflictError):
            self._cache.drop_pod(target.record.key, action.name, action.uid)

    async def _stamp(self, target: ApplyTarget, action: Stamp) -> None:
        body: JsonObject = {"metadata": {"uid": action.uid, "annotations": stamp_annotations(action.busy)}}
        try:
            self._cache.put_pod(await self._api.merge("Pod", target.namespace, action.name, body))
        except (NotThereError, KubeConflictError):
            self._cache.drop_pod(target.record.key, action.name, action.uid)

    # ---- shared objects

    async def _apply_shared(self, bodies: Mapping[str, JsonObject], target: ApplyTarget, action: ApplyShared) -> None:
        if action.key == STORE_SECRET:
            await self._create_secret(target)
            return
        body = bodies[action.key]
        await self._objects.put(target.record, body["kind"], body)

    async def _create_secret(self, target: ApplyTarget) -> None:
        """Creates the Secret of the managed Redis, also after somebody has deleted it. If no key derives the old
        password, the newest key derives another one, which Redis uses from its next start."""
        job, uid, keys = target.job, target.record.uid, self._settings.stores.keys()
        names = (target.secret, derived_secret_name(job, uid, keys[0]))
        password = next(filter(None, (derived_password(job, uid, name, keys) for name in names)))
        body = inherit(store_secret(job, uid, target.secret, password), job, self._settings.pods)
        await self._objects.create_unread(target.record, "Secret", body)
        self._census.see_secret(target.record, target.now)

    async def _scale_store(self, target: ApplyTarget, action: ScaleStore) -> None:
        name, uid = store_name(target.job), target.record.uid
        body = store_stateful_set(target.job, uid, self._settings, action.replicas, secret=target.secret)
        annotations, claims = body["metadata"]["annotations"], body["spec"].get("volumeClaimTemplates")
        annotations[REPLICAS_ANNOTATION] = str(action.replicas)
        if claims:
            claim, problem = store_claim_name(target.job), ""
            found = await self._objects.own(target.record, "StatefulSet", name)
            if found is None:
                # The StatefulSet's controller would adopt a claim of this name, and delete it with the set.
                await self._objects.expect_none(target.record, "PersistentVolumeClaim", claim)
            else:
                # Kubernetes refuses a change of a set's claim templates. With the old claim templates
                # other fields of the set can be changed.
                body["spec"]["volumeClaimTemplates"] = found["spec"]["volumeClaimTemplates"]
                if action.replicas:
                    size = claims[0]["spec"]["resources"]["requests"]["storage"]
                    problem = await resize_claim(self._api, found["metadata"], claim, size)
            self._census.put_volume_problem(target.record.key, problem, target.now)
            if problem:
                # The changed hash makes the set count as outdated, also after a restart of the operator.
                annotations[TEMPLATE_ANNOTATION] += TOO_SMALL
        await self._objects.put(target.record, "StatefulSet", body)

    async def _delete_store(self, target: ApplyTarget, action: DeleteStore) -> None:
        """Deletes the StatefulSet; its policy deletes the volume."""
        await self._objects.delete(target.record, "StatefulSet", store_name(target.job))

    async def _inspect_store(self, target: ApplyTarget, action: InspectStore) -> None:
        """Reads the events of the StatefulSet: its controller creates the pod and the volume, and reports refusals
        as events. Raises NotMadeError for a refusal."""
        name = store_name(target.job)
        found = await self._objects.own(target.record, "StatefulSet", name)
        if found is None:
            return
        fields = f"involvedObject.uid={found['metadata']['uid']},reason=FailedCreate"
        refused: list[JsonObject] = []
        async for page in self._api.pages("Event", (target.namespace,), fields=fields):
            refused += page
        if refused:
            newest = max(refused, key=lambda event: event.get("lastTimestamp") or "")
            raise NotMadeError(Refusal("StatefulSet", name, newest.get("message") or newest["reason"]))

    # ---- the job

    async def _add_finalizer(self, target: ApplyTarget, action: AddFinalizer) -> None:
        await self._set_finalizers(target.record, [*target.record.finalizers, FINALIZER])

    async def _remove_finalizer(self, target: ApplyTarget, action: RemoveFinalizer) -> None:
        await self.remove_finalizer(target.record)

    async def remove_finalizer(self, record: JobRecord) -> None:
        """Removes the operator's finalizer from the job."""
        with suppress(NotThereError):
            await self._set_finalizers(record, [name for name in record.finalizers if name != FINALIZER])

    async def _set_finalizers(self, record: JobRecord, names: list[str]) -> None:
        """Replaces the whole list, as a merge patch does. The resourceVersion makes the call fail if the job has
        changed since it was read."""
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


def refusal_event(refusal: Refusal) -> Announce:
    """The event about an object that Kubernetes refused to create."""
    return Announce(
        True, "NameTaken" if refusal.taken else "PodsNotCreated", f"{refusal.kind} {refusal.name}: {refusal.message}"
    )


async def _first_failure(chain: Stages) -> list[BaseException]:
    """Runs the stages in order until one fails; returns the errors of that stage."""
    for stage in chain:
        errors = await stage()
        if errors:
            return errors
    return []


async def _together(calls: Sequence[Callable[[], Awaitable[None]]]) -> list[BaseException]:
    """Makes all calls, at most CONCURRENT_CALLS at a time; returns the errors."""
    gate = asyncio.Semaphore(CONCURRENT_CALLS)

    async def run(call: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            await call()

    outcomes = await asyncio.gather(*map(run, calls), return_exceptions=True)
    return [outcome for outcome in outcomes if outcome is not None]
