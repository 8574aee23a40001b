"""Why a pod that its node took on has no container yet: of volumes that it cannot mount a node tells in events alone.

Events are read only of pods that have waited long: of one at a look, and the more seldom the longer its job waits.
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
"""A pod without a container waits long from so long after its node took it on; most images are there by then."""
MOST_PAUSE_SECONDS = 300.0
"""A job is asked about again when its oldest such pod has waited twice as long, or after so long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was said of a pod, "" for nothing, and when it was asked (seconds since the epoch)."""

    at: float
    problem: str


class SlowStarts:
    """Remembers what was said of each pod for as long as it waits."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._answers: dict[JobKey, dict[str, _Answer]] = {}

    async def explain(self, key: JobKey, observation: Observation) -> tuple[Observation, float | None]:
        """The observation, in which pods that wait have the problem that was told of them; and in how many seconds
        there is more to ask, None for never. Raises nothing: it is for people alone."""
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
                redis=_told(redis, problems) if redis is not None else None,
                pods=tuple(_told(pod, problems) for pod in observation.pods),
            )
        return observation, max(_due(answers, since) - now, 1.0)

    def forget(self, key: JobKey) -> None:
        """The job is gone."""
        self._answers.pop(key, None)

    async def _ask(self, namespace: str, pod: Pod, known: str) -> str:
        """What was last said of the pod, when that is a warning: what follows a warning ends it, as a pull of the image
        does one of volumes. `known`: the answer where there is none now."""
        none: list[JsonObject] = []
        try:
            page = await anext(self._api.pages("Event", (namespace,), fields=f"involvedObject.uid={pod.uid}"), none)
        except KubeApiError as error:
            log.info("what nodes say of pod %s/%s is not known: %s", namespace, pod.name, error)
            return known
        newest = max(page, key=_order, default=None)
        if newest is None or newest.get("type") != "Warning":
            return ""
        return f"{newest.get('reason') or ''}: {newest.get('message') or ''}"[:LONGEST_TEXT]


def _waits(pod: Pod) -> bool:
    """Whether its node took it on, and nothing is known of why it does not start."""
    stands = pod.ready or pod.leaving or pod.problem or pod.phase is not PodPhase.PENDING
    return bool(pod.node) and pod.started_at is not None and not stands


def _due(answers: Mapping[str, _Answer], since: float) -> float:
    """When the next question may be asked, of pods the oldest of which has waited since then."""
    last = max((answer.at for answer in answers.values()), default=None)
    if last is None:
        return since + SLOW_SECONDS
    return last + min(max(last - since, SLOW_SECONDS), MOST_PAUSE_SECONDS)


def _told(pod: Pod, problems: Mapping[str, str]) -> Pod:
    return replace(pod, problem=problems[pod.uid]) if pod.uid in problems else pod


def _order(event: Mapping[str, Any]) -> tuple[float, bool]:
    """By the last time; of one second, what goes well comes after what does not."""
    times = (part(event, "series").get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(seconds_of(text) or 0.0 for text in times), event.get("type") != "Warning"
