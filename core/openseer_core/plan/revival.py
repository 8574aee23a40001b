"""Revives a failed job if a user has raised the limit that ended it, or requests it."""

from dataclasses import replace

from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import DRIVER, JobOutcome, Memory, Observation

RESTARTS_EXHAUSTED, DEADLINE_EXCEEDED = "RestartsExhausted", "DeadlineExceeded"
"""Reasons of an end by a limit of the spec."""


def revive(observation: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """The memory, without the job's failed end if the job is revived, and the event with the cause.

    A request revives a job once, and only if the job has failed before the request. It resets the counts of failures
    and starts the time of the deadline again. After a raised limit the counts continue.
    """
    asked = observation.revive not in ("", memory.revived_by)
    memory = replace(memory, revived_by=observation.revive)
    if memory.ending is None or memory.ending.outcome is not JobOutcome.FAILED:
        return memory, []
    if asked:
        forgotten = {name: replace(known, count=0, streak=0) for name, known in memory.failures.items()}
        revived = replace(memory, ending=None, started_at=None, failures=forgotten)
        return revived, [_announce(f"asked by {observation.revive!r}", memory.ending.reason)]
    limit = _raised_limit(observation, memory, memory.ending.reason)
    return (replace(memory, ending=None), [_announce(limit, memory.ending.reason)]) if limit else (memory, [])


def _announce(why: str, reason: str) -> Announce:
    return Announce(False, "Revived", f"{why}; it had failed: {reason}")


def _raised_limit(observation: Observation, memory: Memory, reason: str) -> str:
    """Text about the limit of the spec that no longer ends the job, "" if it still does."""
    spec = observation.job.spec
    if reason == RESTARTS_EXHAUSTED:
        policy = spec.failure_policy
        within = all(
            known.count <= (policy.driver_restarts if name == DRIVER else policy.worker_restarts)
            for name, known in memory.failures.items()
        )
        return "spec.failurePolicy allows more restarts" if within else ""
    if reason == DEADLINE_EXCEEDED:
        limit = spec.active_deadline_seconds
        # The end of the job is after the old limit, also if the clock was set back since.
        latest = max(observation.now, memory.ending.at if memory.ending is not None else 0.0)
        past = limit is not None and memory.started_at is not None and latest >= memory.started_at + limit
        return "" if past else "spec.activeDeadlineSeconds allows more time"
    return ""
