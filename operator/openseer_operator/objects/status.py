"""The job's status: what a person and the operator's next reconcile step read. Pure: dictionaries in, dictionaries out.

Conditions follow metav1.Condition: all of them are always there, `lastTransitionTime` moves only when the status flips.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from openseer_core.ids import worker_name
from openseer_core.plan.observation import Ending, Failure, JobOutcome, Memory, Observation, Pod, SickNode
from openseer_core.plan.plan import Plan
from openseer_core.plan.workers import WorkerPods, workers_of
from openseer_core.queue.messages import BatchProgress
from openseer_operator.objects.names import selector_text
from openseer_operator.objects.reading import JsonObject

STORE_LOADS = "the store loads its data"
LONGEST_MESSAGE = 2048
"""Characters of a condition's message."""
_SLOW = ("progress", "busy")
"""Parts of the status that change all the time: they wait for the slow refresh."""


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What the status says beside the plan: the job's generation, its pinned image, tokens per second of late."""

    generation: int
    image: str
    tokens_per_second: float | None = None


def memory_of(status: Mapping[str, Any]) -> Memory:
    """The memory that the operator wrote at its last reconcile step; empty for an empty status."""
    workers, progress = _part(status, "workers"), _part(status, "progress")
    closed = int(progress.get("requestsDone", 0))
    failed = int(progress.get("requestsFailed", 0))
    return Memory(
        started_at=_seconds(status.get("startTime")),
        suspended=_condition(status, "Suspended").get("status") == "True",
        ending=_ending(status),
        desired=workers.get("desired"),
        scaled_at=_seconds(status.get("lastScaleTime")),
        scale_reason=status.get("lastScaleReason") or "",
        failures={
            entry["member"]: Failure(
                entry.get("count", 0),
                entry.get("attempts", 0),
                entry.get("streak", 0),
                entry.get("lastReason", ""),
                _seconds(entry.get("at")) or 0.0,
            )
            for entry in _entries(status, "failures")
        },
        sick_nodes=tuple(
            SickNode(entry["node"], entry.get("worker", ""), entry.get("reason", ""), _seconds(entry.get("at")) or 0.0)
            for entry in _entries(status, "sickNodes")
        ),
        progress=BatchProgress(
            groups=int(progress.get("groups", 0)),
            requests=int(progress.get("requestsTotal", 0)),
            ok=closed - failed,
            infra_failed=failed,
            tokens=int(progress.get("tokens", 0)),
            sealed=bool(progress.get("allSubmitted", False)),
        ),
    )


def last_desired_workers(status: Mapping[str, Any]) -> int:
    """Workers wanted at the last reconcile step; 0 before that, and while it does not run."""
    return _part(status, "workers").get("desired") or 0


def status_of(observation: Observation, plan: Plan, details: StatusDetails, previous: Mapping[str, Any]) -> JsonObject:
    """The whole status after this reconcile step."""
    memory, workers = plan.memory, workers_of(observation)
    ready = sum(worker.ready for worker in workers)
    desired = memory.desired or 0
    conditions = _conditions(observation, memory, workers)
    status: JsonObject = {
        "observedGeneration": details.generation,
        "conditions": _rendered_conditions(conditions, previous, details.generation, observation.now),
        "reason": _summary_reason(conditions),
        "startTime": _time(memory.started_at),
        "completionTime": _time(memory.ending.at if memory.ending is not None else None),
        "image": details.image,
        "selector": selector_text(observation.job, "worker"),
        "progress": _progress(observation, memory, details),
        "workers": {
            "desired": desired,
            "current": sum(not worker.leaving and not worker.ended for worker in workers),
            "ready": ready,
            "busy": sum(worker.busy and worker.ready for worker in workers),
            "summary": f"{ready}/{desired}",
        },
        "lastScaleTime": _time(memory.scaled_at),
        "lastScaleReason": memory.scale_reason,
        "failures": [
            {
                "member": component,
                "count": failure.count,
                "attempts": failure.attempts,
                "streak": failure.streak,
                "lastReason": failure.reason,
                "at": _time(failure.at),
            }
            for component, failure in sorted(memory.failures.items())
        ],
        "sickNodes": [
            {"node": sick.node, "worker": sick.worker, "reason": sick.reason, "at": _time(sick.at)}
            for sick in memory.sick_nodes
        ],
    }
    return {name: value for name, value in status.items() if value not in (None, "", [])}


def refused_status(problems: str, generation: int, previous: Mapping[str, Any], now: float) -> JsonObject:
    """The status of a job whose manifest the operator cannot read; the memory of the job stays."""
    conditions = {kind: _Condition("Unknown", "InvalidManifest", "") for kind in _KINDS} | {
        "Ready": _Condition("False", "InvalidManifest", problems[:LONGEST_MESSAGE])
    }
    kept = {name: value for name, value in previous.items() if name not in ("conditions", "reason")}
    return kept | {
        "observedGeneration": generation,
        "reason": "InvalidManifest",
        "conditions": _rendered_conditions(conditions, previous, generation, now),
    }


def is_urgent(status: Mapping[str, Any], previous: Mapping[str, Any]) -> bool:
    """Whether the two differ in more than what changes all the time."""
    return _without_slow_parts(status) != _without_slow_parts(previous)


def _without_slow_parts(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    parts = cast("Mapping[str, object]", value)
    return {name: _without_slow_parts(part) for name, part in parts.items() if name not in _SLOW}


# ---- conditions


@dataclass(frozen=True, slots=True)
class _Condition:
    status: str
    reason: str
    message: str


_RELEASED = _Condition("False", "Released", "the trainer has the GPUs; workers come back when it acquires them")
_KINDS = ("Suspended", "PodsScheduled", "Available", "Progressing", "Draining", "Complete", "Failed", "Ready")


def _conditions(observation: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> dict[str, _Condition]:
    workers = tuple(workers)
    available = _available(observation, memory, workers)
    return {
        "Suspended": _suspended(observation),
        "PodsScheduled": _scheduled(observation),
        "Available": available,
        "Progressing": _progressing(observation, memory, available),
        "Draining": _draining(observation, memory, workers),
        "Complete": _ended(memory, JobOutcome.COMPLETE),
        "Failed": _ended(memory, JobOutcome.FAILED),
        "Ready": _ready(observation, memory, available),
    }


def _suspended(observation: Observation) -> _Condition:
    if not observation.job.spec.suspend:
        return _Condition("False", "NotSuspended", "")
    left = sum(not pod.ended for pod in observation.pods) + observation.store_pods
    return _Condition("True", "Suspended", "no pod is left" if not left else "pods hand back what they run and leave")


def _scheduled(observation: Observation) -> _Condition:
    pods = [pod for pod in observation.pods if not pod.leaving and not pod.ended]
    if not pods:
        return _Condition("Unknown", "NoPods", "")
    stuck = [pod for pod in pods if pod.unschedulable]
    if stuck:
        rest = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
        return _Condition("False", "Unschedulable", f"{stuck[0].name}: {stuck[0].problem}{rest}"[:LONGEST_MESSAGE])
    if all(pod.node for pod in pods):
        return _Condition("True", "Scheduled", "")
    return _Condition("Unknown", "Scheduling", "")


def _available(observation: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> _Condition:
    ready = sum(worker.ready for worker in workers)
    if memory.released and not ready:
        return _RELEASED
    if not ready:
        problem = _starting_problem(observation.pods)
        if problem is not None:
            return _Condition("False", "PodsNotStarting", problem)
        starting = "the store does not answer yet" if observation.store is None else "engines start"
        return _Condition("False", "NoWorkerReady", STORE_LOADS if observation.store_loads else starting)
    if observation.store is None:
        silence = STORE_LOADS if observation.store_loads else "the store does not answer"
        return _Condition("False", "StoreUnreachable", f"{silence}; workers keep what they have and retry")
    failing = [report for report in observation.store.reports.values() if report.not_loaded]
    why = f"{worker_name(failing[0].index)}: {failing[0].not_loaded}" if failing else ""
    if len(failing) >= ready:
        return _Condition("False", "WeightsNotLoaded", why[:LONGEST_MESSAGE])
    if observation.store.memory.is_nearly_full:
        return _Condition("True", "StoreFull", observation.store.memory.problem())
    taking = f"{ready - len(failing)} of {memory.desired or 0} workers take requests"
    return _Condition("True", "WorkersReady", f"{taking}; {why}"[:LONGEST_MESSAGE] if failing else taking)


def _starting_problem(pods: Iterable[Pod]) -> str | None:
    """What keeps a pod from starting, when anything is known to."""
    stuck = [pod for pod in pods if pod.problem and not pod.ended and not pod.leaving]
    return f"{stuck[0].name}: {stuck[0].problem}"[:LONGEST_MESSAGE] if stuck else None


def _progressing(observation: Observation, memory: Memory, available: _Condition) -> _Condition:
    not_running = _not_running(observation, memory)
    if not_running is not None:
        return not_running
    if available.status == "True":
        return _Condition("True", "Running", "")
    if available.reason == "WeightsNotLoaded":
        return _Condition("False", available.reason, "")
    return _Condition("True", "Starting" if available.reason != "StoreUnreachable" else "WaitingForStore", "")


def _draining(observation: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> _Condition:
    names = [worker.pods[0].component for worker in workers if worker.leaving and not worker.ended]
    if not names:
        return _Condition("False", "NotDraining", "")
    over = memory.ending is not None
    reason = "Finished" if over else "Suspending" if observation.job.spec.suspend else "Handover"
    return _Condition("True", reason, f"{', '.join(names)} hand back what they run"[:LONGEST_MESSAGE])


def _ended(memory: Memory, outcome: JobOutcome) -> _Condition:
    ending = memory.ending
    if ending is None:
        return _Condition("False", "NotYet" if outcome is JobOutcome.COMPLETE else "NotFailed", "")
    if ending.outcome is outcome:
        return _Condition("True", ending.reason, ending.message[:LONGEST_MESSAGE])
    return _Condition("False", ending.outcome.value, "")


def _ready(observation: Observation, memory: Memory, available: _Condition) -> _Condition:
    return _not_running(observation, memory) or available


def _not_running(observation: Observation, memory: Memory) -> _Condition | None:
    """Why a job neither progresses nor is ready, when it is not meant to."""
    if memory.ending is not None:
        return _Condition("False", memory.ending.outcome.value, "")
    if observation.job.spec.suspend:
        return _Condition("False", "Suspended", "")
    return _RELEASED if memory.released else None


def _summary_reason(conditions: Mapping[str, _Condition]) -> str:
    """The reason that describes the job as a whole best."""
    for kind in ("Failed", "Complete", "Suspended"):
        if conditions[kind].status == "True":
            return kind if kind != "Failed" else conditions[kind].reason
    if conditions["PodsScheduled"].status == "False" and conditions["Available"].status != "True":
        return conditions["PodsScheduled"].reason
    return (
        conditions["Available"].reason if conditions["Available"].status != "True" else conditions["Progressing"].reason
    )


def _rendered_conditions(
    current: Mapping[str, _Condition], previous: Mapping[str, Any], generation: int, now: float
) -> list[JsonObject]:
    conditions: list[JsonObject] = []
    for kind, condition in current.items():
        old = _condition(previous, kind)
        flipped = old.get("status") != condition.status
        conditions.append(
            {
                "type": kind,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": _time(now) if flipped else old["lastTransitionTime"],
                "reason": condition.reason,
                "message": condition.message,
            }
        )
    return conditions


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    nothing: Mapping[str, Any] = {}
    return next((entry for entry in _entries(status, "conditions") if entry.get("type") == kind), nothing)


def _entries(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return cast("list[Mapping[str, Any]]", status.get(name) or [])


def _part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", status.get(name) or {})


def _ending(status: Mapping[str, Any]) -> Ending | None:
    for outcome in JobOutcome:
        condition = _condition(status, outcome.value)
        if condition.get("status") == "True":
            at = _seconds(status.get("completionTime") or condition.get("lastTransitionTime")) or 0.0
            return Ending(outcome, condition.get("reason", ""), condition.get("message", ""), at)
    return None


# ---- numbers and times


def _progress(observation: Observation, memory: Memory, details: StatusDetails) -> JsonObject:
    counts = memory.progress
    progress: JsonObject = {
        "groups": counts.groups,
        "requestsTotal": counts.requests,
        "requestsDone": counts.closed,
        "requestsFailed": counts.infra_failed,
        "allSubmitted": counts.sealed,
        "percent": 100 * counts.closed // counts.requests if counts.requests else 0,
        "tokens": counts.tokens,
    }
    runs = memory.ending is None and not observation.job.spec.suspend
    if runs and details.tokens_per_second is not None:
        progress["tokensPerSecond"] = round(details.tokens_per_second)
    # A serving job has no end; that of each of its batches is shown by the API.
    if runs and counts.closed and memory.started_at is not None and observation.job.spec.mode == "batch":
        left = counts.requests - counts.closed
        progress["etaSeconds"] = round((observation.now - memory.started_at) * left / counts.closed)
    return progress


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
