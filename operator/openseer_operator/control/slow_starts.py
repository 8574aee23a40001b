"""Finds out why a pod on a node has no container yet: only events show that a node cannot mount a volume.

The events of a pod are read only after it has waited for SLOW_SECONDS. One pod's events are read per step. The pause
between reads grows with the wait of the job's oldest such pod.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from openseer_core.plan.observation import Observation, Pod, PodPhase
from openseer_operator.kube.api import Api, KubeApiError
from openseer_operator.objects.reading import LONGEST_TEXT, JobKey, JsonObject
from openseer_operator.objects.status_parts import part, seconds_of

SLOW_SECONDS = 60.0
"""Events of a pod are read after it has been on a node without a container for this time, in seconds. Most pulls of
images take less."""
MOST_PAUSE_SECONDS = 300.0
"""Limit of the pause before a job's events are read again, in seconds. The pause is as long as the oldest waiting pod
had waited at the last read, but at least SLOW_SECONDS."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The problem that a pod's events show, "" for none, and the time of the read (seconds since the epoch)."""

    at: float
    problem: str


class SlowStarts:
    """Finds and remembers the problem of each pod that waits for its containers."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._answers: dict[JobKey, dict[str, _Answer]] = {}

    async def explain(self, key: JobKey, observation: Observation) -> tuple[Observation, float | None]:
        """The observation with the problems of waiting pods; and the seconds until the next read, None if no pod waits
        or the job is being deleted. Never raises: the status only shows the problems, and no decision depends on
        them."""
        pods = [pod for pod in (observation.redis, *observation.pods) if pod is not None]
        waiting = {pod.uid: pod for pod in pods if _waits(pod)}
        known = self._answers.pop(key, {})
        if not waiting or observation.deleting_since is not None:
            return observation, None
        answers = self._answers[key] = {uid: answer for uid, answer in known.items() if uid in waiting}
        now, since = observation.now, min(pod.started_at or 0.0 for pod in waiting.values())
        if now >= _due(answers, since):
            slow = (pod for pod in waiting.values() if now >= (pod.started_at or 0.0) + SLOW_SECONDS)
            pod = min(slow, key=lambda pod: answers[pod.uid].at if pod.uid in answers else 0.0, default=None)
            if pod is not None:
                problem = answers[pod.uid].problem if pod.uid in answers else ""
                answers[pod.uid] = _Answer(now, await self._ask(key[0], pod, problem))
        problems = {uid: answer.problem for uid, answer in answers.items() if answer.problem}
        if problems:
            redis = observation.redis
            observation = replace(
                observation,
                redis=_with_problem(redis, problems) if redis is not None else None,
                pods=tuple(_with_problem(pod, problems) for pod in observation.pods),
            )
        return observation, max(_due(answers, since) - now, 1.0)

    def forget(self, key: JobKey) -> None:
        """Drops the data of a deleted job."""
        self._answers.pop(key, None)

    async def _ask(self, namespace: str, pod: Pod, known: str) -> str:
        """The pod's latest event if it is a warning, else "": a later normal event (such as the pull of an image) shows
        that an earlier warning (such as one about a volume) no longer holds. `known`: the result if events cannot be
        read."""
        none: list[JsonObject] = []
        try:
            page = await anext(self._api.pages("Event", (namespace,), fields=f"involvedObject.uid={pod.uid}"), none)
        except KubeApiError as error:
            log.info("events of pod %s/%s cannot be read: %s", namespace, pod.name, error)
            return known
        newest = max(page, key=_order, default=None)
        if newest is None or newest.get("type") != "Warning":
            return ""
        return f"{newest.get('reason') or ''}: {newest.get('message') or ''}"[:LONGEST_TEXT]


def _waits(pod: Pod) -> bool:
    """Whether the pod waits for its containers: it has a node and a start time, is pending, not ready and not being
    deleted, and has no known problem."""
    stands = pod.ready or pod.leaving or pod.problem or pod.phase is not PodPhase.PENDING
    return bool(pod.node) and pod.started_at is not None and not stands


def _due(answers: Mapping[str, _Answer], since: float) -> float:
    """Time of the next read of events. `answers`: the earlier reads; `since`: start of the oldest waiting pod."""
    last = max((answer.at for answer in answers.values()), default=None)
    if last is None:
        return since + SLOW_SECONDS
    return last + min(max(last - since, SLOW_SECONDS), MOST_PAUSE_SECONDS)


def _with_problem(pod: Pod, problems: Mapping[str, str]) -> Pod:
    return replace(pod, problem=problems[pod.uid]) if pod.uid in problems else pod


def _order(event: Mapping[str, Any]) -> tuple[float, bool]:
    """Sort key of events: their last time; within a second normal events come after warnings."""
    times = (part(event, "series").get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(seconds_of(text) or 0.0 for text in times), event.get("type") != "Warning"
