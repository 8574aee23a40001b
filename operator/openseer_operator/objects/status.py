"""Renders and parses the job's status, for users and for the operator's next reconcile step. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from openseer_core.plan.observation import Ending, Failure, GpuSeconds, JobOutcome, Memory, Observation, SickNode
from openseer_core.plan.plan import Plan
from openseer_core.plan.workers import workers_of
from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.time_left import seconds_left, tokens_left
from openseer_operator.objects.backlog import backlog_part, read_backlog, read_scaling, scaling_part
from openseer_operator.objects.conditions import (
    KINDS,
    LONGEST_MESSAGE,
    STORE_NODE_LOST,
    Condition,
    condition_in,
    conditions_of,
    rendered_conditions,
    summary_reason,
)
from openseer_operator.objects.names import selector_text
from openseer_operator.objects.reading import JsonObject
from openseer_operator.objects.status_parts import entries, part, seconds_of, time_text

INVALID_MANIFEST = "InvalidManifest"
"""Reason of all conditions of a job with a manifest that the operator cannot carry out."""
_SLOW = ("progress", "busy", "backlog", "scaling", "gpuSeconds")
"""Parts of the status that change all the time; they are written at the interval of progress."""


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """Values of the status that are not in the plan. `generation`: the job's generation; `image`: the image of its
    workers and driver, pinned against upgrades of the operator; `tokens_per_second`: the recent rate, None if unknown;
    `secret`: name of the managed Redis' Secret."""

    generation: int
    image: str
    tokens_per_second: float | None = None
    secret: str = ""


def memory_of(status: Mapping[str, Any]) -> Memory:
    """Parses the memory that the last reconcile step has written; empty for an empty status."""
    workers, progress, spent = (part(status, name) for name in ("workers", "progress", "gpuSeconds"))
    closed = int(progress.get("requestsDone", 0))
    failed = int(progress.get("requestsFailed", 0))
    return Memory(
        started_at=seconds_of(status.get("startTime")),
        suspended=condition_in(status, "Suspended").get("status") == "True",
        ending=_ending(status),
        desired=workers.get("desired"),
        scaled_at=seconds_of(status.get("lastScaleTime")),
        scale_reason=status.get("lastScaleReason") or "",
        failures={
            entry["member"]: Failure(
                entry.get("count", 0),
                entry.get("attempts", 0),
                entry.get("streak", 0),
                entry.get("lastReason", ""),
                at := seconds_of(entry.get("at")) or 0.0,
                seconds_of(entry.get("since")) or at,
            )
            for entry in entries(status, "failures")
        },
        sick_nodes=tuple(
            SickNode(
                entry["node"],
                entry.get("worker", ""),
                entry.get("reason", ""),
                seconds_of(entry.get("at")) or 0.0,
                seconds_of(entry.get("until")),
            )
            for entry in entries(status, "sickNodes")
        ),
        progress=BatchProgress(
            groups=int(progress.get("groups", 0)),
            requests=int(progress.get("requestsTotal", 0)),
            ok=closed - failed,
            infra_failed=failed,
            tokens=int(progress.get("tokens", 0)),
            sealed=bool(progress.get("allSubmitted", False)),
        ),
        revived_by=status.get("revivedBy") or "",
        backlog=read_backlog(part(status, "backlog")),
        scaling=read_scaling(part(status, "scaling")),
        gpu_seconds=GpuSeconds(int(spent.get("idle", 0)), int(spent.get("busy", 0))),
        redis_lost=condition_in(status, "Available").get("reason") == STORE_NODE_LOST,
    )


def last_desired_workers(status: Mapping[str, Any]) -> int:
    """Desired workers at the last reconcile step; 0 before the first step, and while the job does not run."""
    return part(status, "workers").get("desired") or 0


def status_of(observation: Observation, plan: Plan, details: StatusDetails, previous: Mapping[str, Any]) -> JsonObject:
    """Renders the whole status after this reconcile step. `previous`: the previous status."""
    memory, workers = plan.memory, workers_of(observation)
    ready = sum(worker.ready for worker in workers)
    desired = memory.desired or 0
    conditions = conditions_of(observation, memory, workers)
    status: JsonObject = {
        "observedGeneration": details.generation,
        "conditions": rendered_conditions(conditions, previous, details.generation, observation.now),
        "reason": summary_reason(conditions),
        "startTime": time_text(memory.started_at),
        "completionTime": time_text(memory.ending.at if memory.ending is not None else None),
        "image": details.image,
        "storeSecret": details.secret,
        "selector": selector_text(observation.job, "worker"),
        "progress": _progress(observation, memory, details),
        "workers": {
            "desired": desired,
            "current": sum(not worker.leaving and not worker.ended for worker in workers),
            "ready": ready,
            "busy": sum(worker.busy and worker.ready for worker in workers),
            "summary": f"{ready}/{desired}",
        },
        "backlog": backlog_part(memory.backlog),
        "scaling": scaling_part(memory.scaling),
        "gpuSeconds": _gpu_seconds(memory.gpu_seconds),
        "lastScaleTime": time_text(memory.scaled_at),
        "lastScaleReason": memory.scale_reason,
        "failures": [
            {
                "member": component,
                "count": failure.count,
                "attempts": failure.attempts,
                "streak": failure.streak,
                "lastReason": failure.reason,
                "at": time_text(failure.at),
                "since": time_text(failure.since),
            }
            for component, failure in sorted(memory.failures.items())
        ],
        "sickNodes": [
            {"node": sick.node, "worker": sick.worker, "reason": sick.reason, "at": time_text(sick.at)}
            | ({"until": time_text(sick.until)} if sick.until is not None else {})
            for sick in memory.sick_nodes
        ],
        "revivedBy": memory.revived_by,
    }
    return {name: value for name, value in status.items() if value not in (None, "", [], {})}


def refused_status(problems: str, generation: int, previous: Mapping[str, Any], now: float) -> JsonObject:
    """Renders the status of a job with a manifest that the operator cannot carry out. The memory stays, the end of the
    job included. `now`: seconds since the epoch."""
    if _ending(previous) is not None:
        return {**previous, "observedGeneration": generation}
    stalled = Condition("True", INVALID_MANIFEST, problems[:LONGEST_MESSAGE])
    conditions = {kind: Condition("Unknown", INVALID_MANIFEST, "") for kind in KINDS}
    conditions |= {"Stalled": stalled, "Ready": replace(stalled, status="False")}
    kept = {name: value for name, value in previous.items() if name not in ("conditions", "reason")}
    return kept | {
        "observedGeneration": generation,
        "reason": INVALID_MANIFEST,
        "conditions": rendered_conditions(conditions, previous, generation, now),
    }


def is_urgent(status: Mapping[str, Any], previous: Mapping[str, Any]) -> bool:
    """Whether two statuses differ in a part that is not one of _SLOW."""
    return _without_slow_parts(status) != _without_slow_parts(previous)


def _without_slow_parts(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    parts = cast("Mapping[str, object]", value)
    return {name: _without_slow_parts(part) for name, part in parts.items() if name not in _SLOW}


def _ending(status: Mapping[str, Any]) -> Ending | None:
    for outcome in JobOutcome:
        condition = condition_in(status, outcome.value)
        if condition.get("status") == "True":
            at = seconds_of(status.get("completionTime") or condition.get("lastTransitionTime")) or 0.0
            return Ending(outcome, condition.get("reason", ""), condition.get("message", ""), at)
    return None


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
    # A job of mode serve has no end; the API reports the end of each of its batches.
    left = seconds_left(
        tokens_left(counts), details.tokens_per_second or 0.0, unfinished=counts.requests - counts.closed
    )
    if runs and left is not None and observation.job.spec.mode == "batch":
        progress["etaSeconds"] = round(left)
    return progress


def _gpu_seconds(spent: GpuSeconds) -> JsonObject | None:
    return {"idle": spent.idle, "busy": spent.busy} if spent != GpuSeconds() else None
