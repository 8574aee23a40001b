"""What the operator does next for one job: a pure function of an observation and a memory.

`plan` is level-triggered: it knows nothing of events, only of the state of things; asked again after its actions were
applied, it asks for less each time, until nothing is left to do. The memory must be written before its actions are
applied, for they rest on it (a failure is counted before its pod is deleted).
"""

from dataclasses import dataclass, replace

from openseer_core.manifest.store_url import manages_store
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
)
from openseer_core.plan.failures import backoff_until, update_memory
from openseer_core.plan.observation import DRIVER, RELEASED, JobOutcome, Memory, Observation
from openseer_core.plan.scaling import desired_workers
from openseer_core.plan.workers import forced_deletions, plan_fleet

PURGE_SECONDS = 60.0
"""A job that is deleted while its user's store is down waits so long for it; then it goes without."""
PURGE_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order, the memory to write before them, and when to plan again even if nothing happens."""

    actions: tuple[Action, ...]
    memory: Memory
    wake_at: float | None = None


def plan(observation: Observation) -> Plan:
    """The next actions for the job."""
    actions, wake_at = forced_deletions(observation)
    if observation.deleting_since is not None:
        rest, due = _plan_deletion(observation)
        return Plan((*actions, *rest), observation.memory, _soonest(wake_at, due))
    update = update_memory(observation)
    memory = update.memory
    runs = memory.ending is None and not observation.job.spec.suspend
    desired, reason = (
        desired_workers(observation.job, observation.progress, released=observation.released)
        if runs
        else (0, "the job does not run")
    )
    memory, scaled = _record_scaling(observation, memory, desired, reason)
    actions += [*update.events, *scaled]
    fleet = plan_fleet(observation, memory, desired)
    if runs:
        actions += _prerequisites(observation)
    driver, due = _plan_driver(observation, memory, runs=runs)
    actions += [*driver, *fleet.actions]
    if not runs:
        actions += _stop_store(observation, memory)
    expiry = _expiry(observation, memory)
    if expiry is not None and observation.now >= expiry:
        actions.append(DeleteJob())
        expiry = None
    return Plan(tuple(actions), memory, _soonest(wake_at, fleet.wake_at, due, expiry, _deadline(observation, memory)))


def _prerequisites(observation: Observation) -> list[Action]:
    """Everything that pods stand on, before them."""
    actions: list[Action] = []
    if not manages_store(observation.job) and not observation.finalizer:
        actions.append(AddFinalizer())
    actions += [ApplyShared(key) for key, current in observation.shared.items() if not current]
    if manages_store(observation.job) and observation.store_replicas != 1:
        actions.append(ScaleStore(1))
    return actions


def _stop_store(observation: Observation, memory: Memory) -> list[Action]:
    """The managed store goes after everybody who might still write to it."""
    if (
        not manages_store(observation.job)
        or observation.store_replicas is None
        or any(not pod.ended for pod in observation.pods)
    ):
        return []
    if memory.ending is not None and memory.ending.outcome is JobOutcome.COMPLETE:
        return [DeleteStore()]
    return [ScaleStore(0)] if observation.store_replicas else []


def _plan_driver(observation: Observation, memory: Memory, *, runs: bool) -> tuple[list[Action], float | None]:
    """One driver while a batch runs. That of a finished job stays, for its log; one that ended badly is replaced."""
    if observation.job.spec.mode != "batch":
        return [], None
    pods = [pod for pod in observation.pods if pod.component == DRIVER]
    needed = runs and not any(pod.ended for pod in pods)
    if not needed and memory.ending is not None:
        return [DeletePod(pod.name, pod.uid, "the job is over") for pod in pods if not (pod.ended or pod.leaving)], None
    if not needed:
        reason = "it ended" if runs else "the job is suspended"
        return [DeletePod(pod.name, pod.uid, reason) for pod in pods if not pod.leaving], None
    failure = memory.failures.get(DRIVER)
    due = backoff_until(failure)
    if pods or due > observation.now:
        return [], due if not pods else None
    return [CreatePod(None, 0, failure.attempts if failure is not None else 0)], None


def _record_scaling(observation: Observation, memory: Memory, desired: int, reason: str) -> tuple[Memory, list[Action]]:
    """Remembers when and why the number of workers last changed; a job that does not run keeps that it was released."""
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
    """A deleted job: owner references take its objects along; only keys in a store of the user's are ours to clean."""
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
