"""The operator's next actions for one job: a pure function of an observation and a memory.

`plan` is level-triggered: it depends on the state, not on events. Called again after its actions were applied, it
returns fewer actions, and finally none. The memory must be written before the actions are applied, because they rely on
it (a failure is counted before its pod is deleted).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from openseer_core.manifest.store_url import manages_store
from openseer_core.plan.actions import (
    KV_POOL_OBJECT,
    ROWS_OBJECT,
    Action,
    AddFinalizer,
    Announce,
    ApplyShared,
    CreatePod,
    DeleteJob,
    DeletePod,
    EndSidecars,
    Purge,
    RemoveFinalizer,
    ScaleStore,
)
from openseer_core.plan.autoscale import autoscaled, recommend
from openseer_core.plan.failures import backoff_until, update_memory
from openseer_core.plan.observation import DRIVER, RELEASED, Memory, Observation, Refusal
from openseer_core.plan.scaling import desired_workers
from openseer_core.plan.store import keeps_lost_redis, plan_redis, plan_store
from openseer_core.plan.workers import avoids_in_vain, forced_deletions, plan_fleet

PURGE_SECONDS = 60.0
"""Time for which a deleted job waits for a user's store that does not answer, in seconds; then its keys stay there."""
PURGE_RETRY_SECONDS = 5.0
"""Interval of reconcile steps of a deleted job during that time, in seconds."""
MOST_EVENTS = 16
"""Limit of events of one reason per reconcile step; one more event stands for the rest, because each costs API
calls."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one reconcile step.

    `actions`: in order; `memory`: the memory to write before them; `wake_at`: time of the next step without an event
    (seconds since the epoch), None for none; `refused`: refusals of Kubernetes that still hold, because this step does
    not try their objects again; `ended`: components with an unrequested end; once the memory is written, later plans do
    not contain them again.
    """

    actions: tuple[Action, ...]
    memory: Memory
    wake_at: float | None = None
    refused: tuple[Refusal, ...] = ()
    ended: tuple[str, ...] = ()


_MAKES = (AddFinalizer, ApplyShared, CreatePod)


def _without_creations(actions: Iterable[Action]) -> list[Action]:
    """The actions without those that prepare or create pods."""
    return [action for action in actions if not isinstance(action, _MAKES) and action != ScaleStore(1)]


def plan(observation: Observation) -> Plan:
    """The next actions for the job."""
    actions, wake_at = forced_deletions(observation)
    if observation.deleting_since is not None:
        rest, due = _plan_deletion(observation)
        redis, redis_due = plan_redis(observation, observation.memory)
        memory = replace(observation.memory, redis_lost=keeps_lost_redis(observation, observation.memory))
        return Plan((*actions, *redis, *rest), memory, _soonest(wake_at, due, redis_due))
    update = update_memory(observation)
    memory = update.memory
    runs = memory.ending is None and not observation.job.spec.suspend
    memory, desired, reason, rescale_at = _number_of_workers(observation, memory, runs=runs)
    memory, scaled = _record_scaling(observation, memory, desired, reason)
    redis, redis_due = plan_store(observation, memory, runs=runs)
    memory = replace(memory, redis_lost=keeps_lost_redis(observation, memory))
    actions += [*update.events, *scaled]
    fleet = plan_fleet(observation, memory, desired)
    actions += _prerequisites(observation) if runs else _others_end(observation)
    driver, due = _plan_driver(observation, memory, runs=runs)
    pods = [*driver, *fleet.actions]
    needed = _most_needed_first(observation, pods)
    actions += [*needed, *redis]
    expiry = _expiry(observation, memory)
    if expiry is not None and observation.now >= expiry:
        actions.append(DeleteJob())
        expiry = None
    avoided_until = (node.until for node in memory.sick_nodes if runs)
    waits = fleet.waits or due is not None or len(needed) < len(pods) or not observation.templates.makes
    if not observation.templates.makes:
        actions = _without_creations(actions)
    times = (wake_at, fleet.wake_at, due, redis_due, rescale_at, expiry, _deadline(observation, memory), *avoided_until)
    refused = _still_refused(observation, actions) if waits else ()
    return Plan(_summarized(actions), memory, _soonest(*times), refused, update.ended)


def _still_refused(observation: Observation, actions: Iterable[Action]) -> tuple[Refusal, ...]:
    """The refusals of workers if this step creates no worker, and of the driver if it creates no driver."""
    driver = f"{observation.job.name}-{DRIVER}"
    tried = {action.index is None for action in actions if isinstance(action, CreatePod)}
    pods = (refusal for refusal in observation.refusals if refusal.kind == "Pod")
    return tuple(refusal for refusal in pods if (refusal.name == driver) not in tried)


def _summarized(actions: Sequence[Action]) -> tuple[Action, ...]:
    """The actions with at most MOST_EVENTS events of each reason, and one event with the number of the other events."""
    events: dict[str, list[Announce]] = defaultdict(list)
    kept: list[Action] = []
    for action in actions:
        if isinstance(action, Announce):
            events[action.reason].append(action)
        if not isinstance(action, Announce) or len(events[action.reason]) <= MOST_EVENTS:
            kept.append(action)
    for reason, announced in events.items():
        rest = announced[MOST_EVENTS:]
        if rest:
            warning = any(event.warning for event in rest)
            kept.append(Announce(warning, reason, f"and {len(rest)} more; the last: {rest[-1].message}"))
    return tuple(kept)


def _number_of_workers(
    observation: Observation, memory: Memory, *, runs: bool
) -> tuple[Memory, int, str, float | None]:
    """The new memory, the wanted number of workers, its reason, and when it may change without an event."""
    job, number, due = observation.job, None, None
    if runs:
        memory = replace(memory, backlog=recommend(observation, memory))
        if job.spec.workers.autoscale is not None:
            decision = autoscaled(observation, memory)
            memory, number, due = replace(memory, scaling=decision.scaling), decision.workers, decision.due
    desired, reason = desired_workers(
        job, observation.progress, runs=runs, released=observation.released, autoscaled=number
    )
    return memory, desired, reason, due


def _prerequisites(observation: Observation) -> list[Action]:
    """Creates all objects that pods need; these actions come before the creation of pods."""
    actions: list[Action] = []
    if not manages_store(observation.job) and not observation.finalizer:
        actions.append(AddFinalizer())
    actions += [ApplyShared(key) for key, current in observation.shared.items() if not current]
    if manages_store(observation.job) and (observation.store_replicas != 1 or not observation.store_current):
        actions.append(ScaleStore(1))
    return actions


def _others_end(observation: Observation) -> list[Action]:
    """Removes the pods of the KV pool and of the rows of a job that does not run."""
    return [ApplyShared(key) for key in (KV_POOL_OBJECT, ROWS_OBJECT) if observation.shared.get(key) is False]


def _most_needed_first(observation: Observation, actions: list[Action]) -> list[Action]:
    """Without creations that have to wait. No pod is created before the pod of the managed Redis. After a refusal no
    worker is created before the driver, because workers would take the room of a quota and wait for ever."""
    if manages_store(observation.job) and not observation.store_pods:
        return [action for action in actions if not isinstance(action, CreatePod)]
    if not observation.refusals or observation.job.spec.mode != "batch":
        return actions
    has_driver = any(pod.component == DRIVER and not pod.ended for pod in observation.pods)
    return [action for action in actions if has_driver or not isinstance(action, CreatePod) or action.index is None]


def _plan_driver(observation: Observation, memory: Memory, *, runs: bool) -> tuple[list[Action], float | None]:
    """Keeps one driver while a batch job runs, and replaces an ended one. The driver's pod of a finished job stays,
    because it has the log."""
    if observation.job.spec.mode != "batch":
        return [], None
    pods = [pod for pod in observation.pods if pod.component == DRIVER]
    needed = runs and not any(pod.ended for pod in pods)
    if not needed and memory.ending is not None:
        present = [pod for pod in pods if not pod.leaving]
        ends = [EndSidecars(pod.name, pod.uid) for pod in present if pod.lingers]
        return [*ends, *(DeletePod(pod.name, pod.uid, "the job is over") for pod in present if not pod.ended)], None
    if not needed:
        reason = "it ended" if runs else "the job is suspended"
        return [DeletePod(pod.name, pod.uid, reason) for pod in pods if not pod.leaving], None
    outdated = [pod for pod in pods if avoids_in_vain(observation, pod, memory)]
    if outdated:
        return [DeletePod(pod.name, pod.uid, "a node that it avoids can be used again") for pod in outdated], None
    failure = memory.failures.get(DRIVER)
    due = backoff_until(failure)
    if pods or due > observation.now:
        return [], due if not pods else None
    return [CreatePod(None, 0, failure.attempts if failure is not None else 0, memory.refusing)], None


def _record_scaling(observation: Observation, memory: Memory, desired: int, reason: str) -> tuple[Memory, list[Action]]:
    """Remembers time and reason of the last change of the number of workers. A job that does not run stays released."""
    runs = memory.ending is None and not observation.job.spec.suspend
    if desired == memory.desired:
        changed_release = runs and (reason == RELEASED) != memory.released
        return replace(memory, scale_reason=reason) if changed_release else memory, []
    changed = replace(memory, desired=desired, scaled_at=observation.now, scale_reason=reason)
    if memory.desired is None or not runs:
        return changed, []
    event = "ScaledUp" if desired > memory.desired else "ScaledDown"
    return changed, [Announce(False, event, f"workers {memory.desired} → {desired} ({reason})")]


def _plan_deletion(observation: Observation) -> tuple[list[Action], float | None]:
    """The actions on a deleted job. Kubernetes deletes its objects; only its keys in a user's own Redis need a
    purge."""
    if not observation.finalizer:
        return [], None
    if manages_store(observation.job):
        return [RemoveFinalizer()], None
    if observation.pods:
        return [DeletePod(pod.name, pod.uid, "the job is deleted") for pod in observation.pods if not pod.leaving], None
    if observation.store is not None:
        return [Purge(), RemoveFinalizer()], None
    assert observation.deleting_since is not None
    give_up_at = observation.deleting_since + PURGE_SECONDS
    if observation.now < give_up_at:
        return [], min(give_up_at, observation.now + PURGE_RETRY_SECONDS)
    message = f"the store did not answer for {PURGE_SECONDS:.0f} s; keys of this job may be left there"
    return [Announce(True, "StoreNotCleaned", message), RemoveFinalizer()], None


def _expiry(observation: Observation, memory: Memory) -> float | None:
    ttl = observation.job.spec.ttl_seconds_after_finished
    return memory.ending.at + ttl if memory.ending is not None and ttl is not None else None


def _deadline(observation: Observation, memory: Memory) -> float | None:
    limit = observation.job.spec.active_deadline_seconds
    if limit is None or memory.started_at is None or memory.ending is not None:
        return None
    return memory.started_at + limit


def _soonest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)
