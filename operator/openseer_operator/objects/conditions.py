"""The conditions of a job's status, in the form of metav1.Condition, for users, kubectl wait and kstatus.

A status always has all conditions. Their `lastTransitionTime` changes only with the condition's status.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openseer_core.ids import worker_name
from openseer_core.plan.observation import JobOutcome, Memory, Observation, Refusal, TemplateAnswer
from openseer_core.plan.store import lost_message
from openseer_core.plan.workers import WorkerPods
from openseer_operator.objects.reading import JsonObject
from openseer_operator.objects.status_parts import entries, time_text

NO_POD_LEFT = "no pod is left"
STORE_LOADS = "the store loads its data"
STORE_NODE_LOST = "StoreNodeLost"
LONGEST_MESSAGE = 2048
"""Limit of characters of a condition's message."""
TEMPLATE_INVALID = "TemplateInvalid"
"""Name of a condition, and its reason."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: its status (True, False or Unknown), a reason of one CamelCase word, and a message for users."""

    status: str
    reason: str
    message: str


_RELEASED = Condition("False", "Released", "the GPUs are lent to the trainer; workers start again when it returns them")
_NOT_STALLED = Condition("False", "NotStalled", "")
KINDS = (
    *("Suspended", TEMPLATE_INVALID, "NameTaken", "PodsCreated", "VolumeResized", "PodsScheduled", "Available"),
    *("Progressing", "Draining", "Complete", "Failed", "Stalled", "Ready"),
)


def conditions_of(observation: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> dict[str, Condition]:
    """All conditions after a reconcile step, by their type."""
    workers = tuple(workers)
    available = _available(observation, memory, workers)
    suspended, failed, template = _suspended(observation), _ended(memory, JobOutcome.FAILED), _template(observation)
    return {
        "Suspended": suspended,
        TEMPLATE_INVALID: template,
        "NameTaken": _name_taken(observation),
        "PodsCreated": _created(observation),
        "VolumeResized": _resized(observation),
        "PodsScheduled": _scheduled(observation),
        "Available": available,
        "Progressing": _progressing(observation, memory, available),
        "Draining": _draining(observation, memory, workers),
        "Complete": _ended(memory, JobOutcome.COMPLETE),
        "Failed": failed,
        "Stalled": next((each for each in (failed, template) if each.status == "True"), _NOT_STALLED),
        "Ready": _ready(observation, memory, available, suspended),
    }


def _template(observation: Observation) -> Condition:
    verdict = observation.templates
    match verdict.answer:
        case TemplateAnswer.TAKEN:
            return Condition("False", "TemplatesTaken", "")
        case TemplateAnswer.INVALID:
            return Condition("True", TEMPLATE_INVALID, verdict.problem[:LONGEST_MESSAGE])
        case _:
            return Condition("Unknown", "TemplatesNotProven", verdict.problem[:LONGEST_MESSAGE])


def _suspended(observation: Observation) -> Condition:
    if not observation.job.spec.suspend:
        return Condition("False", "NotSuspended", "")
    left = sum(pod.lingers or not pod.ended for pod in observation.pods) + observation.store_pods
    return Condition("True", "Suspended", NO_POD_LEFT if not left else "pods give back their requests and end")


def _name_taken(observation: Observation) -> Condition:
    taken = [refusal for refusal in observation.refusals if refusal.taken]
    return Condition("True", "NameTaken", _refusal_text(taken)) if taken else Condition("False", "NamesFree", "")


def _created(observation: Observation) -> Condition:
    if observation.refusals:
        return _not_created(observation.refusals)
    return Condition("True", "Created", "") if observation.pods else Condition("Unknown", "NoPods", "")


def _not_created(refusals: Sequence[Refusal]) -> Condition:
    return Condition("False", "NameTaken" if refusals[0].taken else "PodsNotCreated", _refusal_text(refusals))


def _refusal_text(refusals: Sequence[Refusal]) -> str:
    first = refusals[0]
    rest = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return f"{first.kind} {first.name}: {first.message}"[: LONGEST_MESSAGE - len(rest)] + rest


def _resized(observation: Observation) -> Condition:
    """Whether the volume of the managed Redis has the size in the job's spec."""
    if observation.store_replicas is None:
        return Condition("Unknown", "NoVolume", "")
    if observation.volume_problem:
        return Condition("False", "VolumeNotResized", observation.volume_problem[:LONGEST_MESSAGE])
    return Condition("True", "AsAskedFor", "")


def _scheduled(observation: Observation) -> Condition:
    pods = [pod for pod in observation.pods if not pod.leaving and not pod.ended]
    if not pods:
        return Condition("Unknown", "NoPods", "")
    stuck = [pod for pod in pods if pod.unschedulable]
    if stuck:
        rest = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
        return Condition("False", "Unschedulable", f"{stuck[0].name}: {stuck[0].problem}{rest}"[:LONGEST_MESSAGE])
    gated = [pod for pod in pods if pod.gated]
    if gated:
        text = f"{len(gated)} of {len(pods)} pods are gated; {gated[0].name}: {gated[0].problem}"
        return Condition("False", "SchedulingGated", text[:LONGEST_MESSAGE])
    if all(pod.node for pod in pods):
        return Condition("True", "Scheduled", "")
    return Condition("Unknown", "Scheduling", "")


def _available(observation: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> Condition:
    ready = sum(worker.ready for worker in workers)
    if memory.redis_lost:
        return Condition("False", STORE_NODE_LOST, lost_message(observation)[:LONGEST_MESSAGE])
    if memory.released and not ready:
        return _RELEASED
    if not ready and memory.desired == 0:
        return Condition("False", "NoWorkersWanted", memory.scale_reason)
    if not ready:
        return _not_ready(observation)
    if observation.store is None:
        retry = "; workers keep their requests and retry"
        return _silent_store(observation, "StoreUnreachable", "the store does not answer", retry)
    failing = [report for report in observation.store.reports.values() if report.not_loaded]
    why = f"{worker_name(failing[0].index)}: {failing[0].not_loaded}" if failing else ""
    if len(failing) >= ready:
        return Condition("False", "WeightsNotLoaded", why[:LONGEST_MESSAGE])
    if observation.store.memory.is_nearly_full:
        return Condition("True", "StoreFull", observation.store.memory.problem())
    taking = f"{ready - len(failing)} of {memory.desired or 0} workers take requests"
    return Condition("True", "WorkersReady", f"{taking}; {why}"[:LONGEST_MESSAGE] if failing else taking)


def _not_ready(observation: Observation) -> Condition:
    """The condition `Available` while no worker is ready, with the cause if known; a problem of Redis comes first."""
    pods = [pod for pod in (observation.redis, *observation.pods) if pod is not None]
    stuck = [pod for pod in pods if pod.problem and not pod.ended and not pod.leaving]
    if stuck:
        return Condition("False", "PodsNotStarting", f"{stuck[0].name}: {stuck[0].problem}"[:LONGEST_MESSAGE])
    if observation.templates.answer is TemplateAnswer.INVALID:
        return replace(_template(observation), status="False")
    if observation.refusals:
        return _not_created(observation.refusals)
    starting = "the store does not answer yet" if observation.store is None else "engines start"
    return _silent_store(observation, "NoWorkerReady", starting)


def _silent_store(observation: Observation, reason: str, message: str, follows: str = "") -> Condition:
    """The condition `Available` while no worker is ready or the store does not answer. Its message is the first of: the
    store's problem; the loading of its data; the problem of its pod; `message`. `follows` is appended to all but the
    first."""
    problem = observation.store_problem
    if problem is not None:
        return Condition("False", problem.reason, problem.message[:LONGEST_MESSAGE])
    redis = observation.redis
    if redis is not None and redis.problem and not redis.ready:
        message = f"{redis.name}: {redis.problem}"
    return Condition(
        "False", reason, f"{STORE_LOADS if observation.store_loads else message}{follows}"[:LONGEST_MESSAGE]
    )


def _progressing(observation: Observation, memory: Memory, available: Condition) -> Condition:
    not_running = _not_running(observation, memory)
    if not_running is not None:
        return not_running
    if available.status == "True":
        return Condition("True", "Running", "")
    if available.reason in ("WeightsNotLoaded", "NoWorkersWanted", TEMPLATE_INVALID):
        return Condition("False", available.reason, "")
    silent = available.reason in ("StoreUnreachable", STORE_NODE_LOST)
    waits = silent or observation.store_problem is not None
    return Condition("True", "WaitingForStore" if waits else "Starting", "")


def _draining(observation: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> Condition:
    names = [worker.pods[0].component for worker in workers if worker.leaving and not worker.ended]
    if not names:
        return Condition("False", "NotDraining", "")
    over = memory.ending is not None
    reason = "Finished" if over else "Suspending" if observation.job.spec.suspend else "Handover"
    return Condition("True", reason, f"{', '.join(names)} give back their requests"[:LONGEST_MESSAGE])


def _ended(memory: Memory, outcome: JobOutcome) -> Condition:
    ending = memory.ending
    if ending is None:
        return Condition("False", "NotYet" if outcome is JobOutcome.COMPLETE else "NotFailed", "")
    if ending.outcome is outcome:
        return Condition("True", ending.reason, ending.message[:LONGEST_MESSAGE])
    return Condition("False", ending.outcome.value, "")


def _ready(observation: Observation, memory: Memory, available: Condition, suspended: Condition) -> Condition:
    """`Ready` as in kstatus: whether the job is in the state that its spec and its trainer require."""
    if memory.ending is not None:
        complete = memory.ending.outcome is JobOutcome.COMPLETE
        return Condition(str(complete), memory.ending.outcome.value, "")
    if observation.job.spec.suspend:
        return Condition(str(suspended.message == NO_POD_LEFT), "Suspended", suspended.message)
    if observation.templates.answer is TemplateAnswer.INVALID:
        return replace(_template(observation), status="False")
    if available.reason in (_RELEASED.reason, "NoWorkersWanted"):
        return replace(available, status="True")
    return available


def _not_running(observation: Observation, memory: Memory) -> Condition | None:
    """The condition `Progressing` of a job that is over, suspended or released; None for other jobs."""
    if memory.ending is not None:
        return Condition("False", memory.ending.outcome.value, "")
    if observation.job.spec.suspend:
        return Condition("False", "Suspended", "")
    return _RELEASED if memory.released else None


def summary_reason(conditions: Mapping[str, Condition]) -> str:
    """The reason that describes the state of the whole job."""
    for kind in ("Failed", "Complete", "Suspended"):
        if conditions[kind].status == "True":
            return kind if kind != "Failed" else conditions[kind].reason
    if conditions[TEMPLATE_INVALID].status == "True":
        return TEMPLATE_INVALID
    if conditions["PodsScheduled"].status == "False" and conditions["Available"].status != "True":
        return conditions["PodsScheduled"].reason
    return (
        conditions["Available"].reason if conditions["Available"].status != "True" else conditions["Progressing"].reason
    )


def rendered_conditions(
    current: Mapping[str, Condition], previous: Mapping[str, Any], generation: int, now: float
) -> list[JsonObject]:
    """Renders conditions for the status, with the time of the last change of each. `previous`: the previous status;
    `now`: seconds since the epoch."""
    conditions: list[JsonObject] = []
    for kind, condition in current.items():
        old = condition_in(previous, kind)
        flipped = old.get("status") != condition.status
        conditions.append(
            {
                "type": kind,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": time_text(now) if flipped else old["lastTransitionTime"],
                "reason": condition.reason,
                "message": condition.message,
            }
        )
    return conditions


def condition_in(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of this type in a status; empty if there is none."""
    nothing: Mapping[str, Any] = {}
    return next((entry for entry in entries(status, "conditions") if entry.get("type") == kind), nothing)
