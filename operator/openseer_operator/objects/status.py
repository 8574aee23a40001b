"""The job's status: what a person and the next look of the operator read. Pure: dictionaries in, dictionaries out.

Conditions follow metav1.Condition: all of them are always there, `lastTransitionTime` moves only when the status flips.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from openseer_core.plan.observation import Ending, Failure, JobOutcome, Memory, Observation, Pod, SickNode
from openseer_core.plan.plan import Plan
from openseer_core.plan.workers import WorkerPods, workers_of
from openseer_core.queue.messages import BatchProgress
from openseer_operator.objects.names import selector_text

Json = dict[str, Any]
LONGEST_MESSAGE = 2048
"""Characters of a condition's message."""
_SLOW = ("progress", "busy")
"""Parts of the status that change all the time: they wait for the slow refresh."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the status says beside the plan: the job's generation, its pinned image, tokens per second of late."""

    generation: int
    image: str
    tokens_per_second: float | None = None


def memory_of(status: Mapping[str, Any]) -> Memory:
    """What the operator wrote down when it last looked; of an empty status, nothing."""
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


def wanted_workers(status: Mapping[str, Any]) -> int:
    """Workers wanted when the job was last looked at; 0 before that, and while it does not run."""
    return _part(status, "workers").get("desired") or 0


def status_of(o: Observation, plan: Plan, facts: Facts, previous: Mapping[str, Any]) -> Json:
    """The whole status after this look."""
    memory, workers = plan.memory, workers_of(o)
    ready = sum(worker.ready for worker in workers)
    desired = memory.desired or 0
    found = _conditions(o, memory, workers)
    status: Json = {
        "observedGeneration": facts.generation,
        "conditions": _stamped(found, previous, facts.generation, o.now),
        "reason": _telling(found),
        "startTime": _time(memory.started_at),
        "completionTime": _time(memory.ending.at if memory.ending is not None else None),
        "image": facts.image,
        "selector": selector_text(o.job, "worker"),
        "progress": _progress(o, memory, facts),
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
                "member": member,
                "count": one.count,
                "attempts": one.attempts,
                "streak": one.streak,
                "lastReason": one.reason,
                "at": _time(one.at),
            }
            for member, one in sorted(memory.failures.items())
        ],
        "sickNodes": [
            {"node": one.node, "worker": one.worker, "reason": one.reason, "at": _time(one.at)}
            for one in memory.sick_nodes
        ],
    }
    return {name: value for name, value in status.items() if value not in (None, "", [])}


def refused(problems: str, generation: int, previous: Mapping[str, Any], now: float) -> Json:
    """The status of a job whose manifest the operator cannot read; what it remembers of the job stays."""
    found = {kind: _Found("Unknown", "InvalidManifest", "") for kind in _KINDS} | {
        "Ready": _Found("False", "InvalidManifest", problems[:LONGEST_MESSAGE])
    }
    kept = {name: value for name, value in previous.items() if name not in ("conditions", "reason")}
    return kept | {
        "observedGeneration": generation,
        "reason": "InvalidManifest",
        "conditions": _stamped(found, previous, generation, now),
    }


def urgent(status: Mapping[str, Any], previous: Mapping[str, Any]) -> bool:
    """Whether the two differ in more than what changes all the time."""
    return _steady(status) != _steady(previous)


def _steady(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    parts = cast("Mapping[str, object]", value)
    return {name: _steady(part) for name, part in parts.items() if name not in _SLOW}


# ---- conditions


@dataclass(frozen=True, slots=True)
class _Found:
    status: str
    reason: str
    message: str


_RELEASED = _Found("False", "Released", "the trainer has the GPUs; workers come back when it acquires them")
_KINDS = ("Suspended", "PodsScheduled", "Available", "Progressing", "Draining", "Complete", "Failed", "Ready")


def _conditions(o: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> dict[str, _Found]:
    workers = tuple(workers)
    available = _available(o, memory, workers)
    return {
        "Suspended": _suspended(o),
        "PodsScheduled": _scheduled(o),
        "Available": available,
        "Progressing": _progressing(o, memory, available),
        "Draining": _draining(o, memory, workers),
        "Complete": _ended(memory, JobOutcome.COMPLETE),
        "Failed": _ended(memory, JobOutcome.FAILED),
        "Ready": _ready(o, memory, available),
    }


def _suspended(o: Observation) -> _Found:
    if not o.job.spec.suspend:
        return _Found("False", "NotSuspended", "")
    left = sum(not pod.ended for pod in o.pods) + o.store_pods
    return _Found("True", "Suspended", "no pod is left" if not left else "pods hand back what they run and leave")


def _scheduled(o: Observation) -> _Found:
    pods = [pod for pod in o.pods if not pod.leaving and not pod.ended]
    if not pods:
        return _Found("Unknown", "NoPods", "")
    stuck = [pod for pod in pods if pod.unschedulable]
    if stuck:
        rest = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
        return _Found("False", "Unschedulable", f"{stuck[0].name}: {stuck[0].problem}{rest}"[:LONGEST_MESSAGE])
    if all(pod.node for pod in pods):
        return _Found("True", "Scheduled", "")
    return _Found("Unknown", "Scheduling", "")


def _available(o: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> _Found:
    ready = sum(worker.ready for worker in workers)
    if memory.released and not ready:
        return _RELEASED
    if not ready:
        trouble = _trouble(o.pods)
        if trouble is not None:
            return _Found("False", "PodsNotStarting", trouble)
        return _Found("False", "NoWorkerReady", "the store does not answer yet" if o.store is None else "engines start")
    if o.store is None:
        return _Found("False", "StoreUnreachable", "the store does not answer; workers keep what they have and retry")
    return _Found("True", "WorkersReady", f"{ready} of {memory.desired or 0} workers take requests")


def _trouble(pods: Iterable[Pod]) -> str | None:
    """What keeps a pod from starting, when anything is known to."""
    stuck = [pod for pod in pods if pod.problem and not pod.ended and not pod.leaving]
    return f"{stuck[0].name}: {stuck[0].problem}"[:LONGEST_MESSAGE] if stuck else None


def _progressing(o: Observation, memory: Memory, available: _Found) -> _Found:
    resting = _resting(o, memory)
    if resting is not None:
        return resting
    if available.status == "True":
        return _Found("True", "Running", "")
    return _Found("True", "Starting" if available.reason != "StoreUnreachable" else "WaitingForStore", "")


def _draining(o: Observation, memory: Memory, workers: Iterable[WorkerPods]) -> _Found:
    names = [worker.pods[0].component for worker in workers if worker.leaving and not worker.ended]
    if not names:
        return _Found("False", "NotDraining", "")
    over = memory.ending is not None
    reason = "Finished" if over else "Suspending" if o.job.spec.suspend else "Handover"
    return _Found("True", reason, f"{', '.join(names)} hand back what they run"[:LONGEST_MESSAGE])


def _ended(memory: Memory, outcome: JobOutcome) -> _Found:
    ending = memory.ending
    if ending is None:
        return _Found("False", "NotYet" if outcome is JobOutcome.COMPLETE else "NotFailed", "")
    if ending.outcome is outcome:
        return _Found("True", ending.reason, ending.message[:LONGEST_MESSAGE])
    return _Found("False", ending.outcome.value, "")


def _ready(o: Observation, memory: Memory, available: _Found) -> _Found:
    return _resting(o, memory) or available


def _resting(o: Observation, memory: Memory) -> _Found | None:
    """Why a job neither progresses nor is ready, when it is not meant to."""
    if memory.ending is not None:
        return _Found("False", memory.ending.outcome.value, "")
    if o.job.spec.suspend:
        return _Found("False", "Suspended", "")
    return _RELEASED if memory.released else None


def _telling(found: Mapping[str, _Found]) -> str:
    """The reason that says most of the job as a whole."""
    for kind in ("Failed", "Complete", "Suspended"):
        if found[kind].status == "True":
            return kind if kind != "Failed" else found[kind].reason
    if found["PodsScheduled"].status == "False" and found["Available"].status != "True":
        return found["PodsScheduled"].reason
    return found["Available"].reason if found["Available"].status != "True" else found["Progressing"].reason


def _stamped(found: Mapping[str, _Found], previous: Mapping[str, Any], generation: int, now: float) -> list[Json]:
    stamped: list[Json] = []
    for kind, one in found.items():
        old = _condition(previous, kind)
        flipped = old.get("status") != one.status
        stamped.append(
            {
                "type": kind,
                "status": one.status,
                "observedGeneration": generation,
                "lastTransitionTime": _time(now) if flipped else old["lastTransitionTime"],
                "reason": one.reason,
                "message": one.message,
            }
        )
    return stamped


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    nothing: Mapping[str, Any] = {}
    return next((one for one in _entries(status, "conditions") if one.get("type") == kind), nothing)


def _entries(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return cast("list[Mapping[str, Any]]", status.get(name) or [])


def _part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", status.get(name) or {})


def _ending(status: Mapping[str, Any]) -> Ending | None:
    for outcome in JobOutcome:
        found = _condition(status, outcome.value)
        if found.get("status") == "True":
            at = _seconds(status.get("completionTime") or found.get("lastTransitionTime")) or 0.0
            return Ending(outcome, found.get("reason", ""), found.get("message", ""), at)
    return None


# ---- numbers and times


def _progress(o: Observation, memory: Memory, facts: Facts) -> Json:
    counts = memory.progress
    progress: Json = {
        "groups": counts.groups,
        "requestsTotal": counts.requests,
        "requestsDone": counts.closed,
        "requestsFailed": counts.infra_failed,
        "allSubmitted": counts.sealed,
        "percent": 100 * counts.closed // counts.requests if counts.requests else 0,
        "tokens": counts.tokens,
    }
    runs = memory.ending is None and not o.job.spec.suspend
    if runs and facts.tokens_per_second is not None:
        progress["tokensPerSecond"] = round(facts.tokens_per_second)
    # A serving job has no end; that of each of its batches is the API's to tell.
    if runs and counts.closed and memory.started_at is not None and o.job.spec.mode == "batch":
        left = counts.requests - counts.closed
        progress["etaSeconds"] = round((o.now - memory.started_at) * left / counts.closed)
    return progress


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
