"""Reasons of pods that do not start, from their nodes' events; a played API server holds the events."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from openseer_core.plan.observation import Observation, Pod, PodPhase
from openseer_operator.control.slow_starts import MOST_PAUSE_SECONDS, SLOW_SECONDS, SlowStarts
from openseer_operator.kube.api import Api, KubeApiError
from openseer_operator.objects.reading import JsonObject
from tests.core.plan.cluster_model import make_job

KEY = ("lab", "j")
NOW = 1_790_000_000.0
MOUNT = 'MountVolume.SetUp failed for volume "prompts" : configmap "sums" not found'


def event(reason: str, message: str, at: str, kind: str = "Warning", *, series: bool = False) -> JsonObject:
    """An event. `at`: its minute; `series`: in the form of the newer API."""
    time = f"2026-01-01T00:00:{at}.000000Z"
    when: JsonObject = {"eventTime": time, "lastTimestamp": None} if series else {"lastTimestamp": time}
    return {"metadata": {"name": reason}, "type": kind, "reason": reason, "message": message, **when}


class PlayedApi:
    """Events by uid of their pod. `asked`: uids of the pods whose events were read."""

    def __init__(self) -> None:
        self.events: dict[str, list[JsonObject]] = {}
        self.asked: list[str] = []
        self.fails = False

    async def pages(self, kind: str, namespaces: tuple[str, ...], *, fields: str) -> AsyncIterator[list[JsonObject]]:
        assert (kind, namespaces) == ("Event", ("lab",))
        uid = fields.removeprefix("involvedObject.uid=")
        self.asked.append(uid)
        if self.fails:
            raise KubeApiError("forbidden", 403)
        yield self.events.get(uid, [])


class Bench:
    """A job with two workers that were assigned to a node at NOW."""

    def __init__(self) -> None:
        self.api = PlayedApi()
        self.starts = SlowStarts(cast("Api", self.api))
        self.pods = tuple(Pod(f"j-worker-{n}", f"u{n}", n, node="n1", started_at=NOW) for n in range(2))
        self.redis: Pod | None = None

    async def look(self, after: float) -> tuple[list[str], float | None]:
        """The problems of the pods after that time, Redis' first, and when the next step is due."""
        seen = Observation(now=NOW + after, job=make_job(), pods=self.pods, redis=self.redis)
        seen, due = await self.starts.explain(KEY, seen)
        return [pod.problem for pod in (seen.redis, *seen.pods) if pod is not None], due

    async def all_asked(self) -> list[str]:
        """The problems after the events of both workers were read."""
        await self.look(SLOW_SECONDS)
        return (await self.look(4 * SLOW_SECONDS))[0]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_an_event_without_time_is_read_and_a_deleted_job_reads_none(bench: Bench) -> None:
    odd = {**event("FailedMount", MOUNT, "09"), "lastTimestamp": "0000-01-01T00:00:00Z"}
    bench.api.events = {pod.uid: [odd] for pod in bench.pods}
    assert (await bench.look(SLOW_SECONDS))[0] == [f"FailedMount: {MOUNT}", ""]
    leaving = Observation(now=NOW + 500.0, job=make_job(), pods=bench.pods, deleting_since=NOW)
    assert await bench.starts.explain(KEY, leaving) == (leaving, None)
    assert bench.api.asked == ["u0"]


async def test_a_failed_mount_is_reported_after_a_long_wait_of_the_pod(bench: Bench) -> None:
    bench.api.events = {pod.uid: [event("FailedMount", MOUNT, "09")] for pod in bench.pods}
    assert await bench.look(1.0) == (["", ""], SLOW_SECONDS - 1.0)
    assert bench.api.asked == []
    problems, _ = await bench.look(SLOW_SECONDS)
    assert problems == [f"FailedMount: {MOUNT}", ""]
    assert bench.api.asked == ["u0"], "one call a look"
    await bench.look(SLOW_SECONDS + 1.0)
    assert bench.api.asked == ["u0"]
    bench.pods = (replace(bench.pods[0], phase=PodPhase.RUNNING, ready=True), bench.pods[1])
    assert (await bench.look(SLOW_SECONDS + 2.0))[0][0] == "", "what started has no problem any more"


async def test_events_of_a_waiting_job_are_read_at_growing_intervals(bench: Bench) -> None:
    now, pauses = 0.0, list[float]()
    for _ in range(6):
        _, due = await bench.look(now)
        assert due is not None
        pauses.append(due)
        now += due
    assert pauses == [60.0, 60.0, 120.0, 240.0, MOST_PAUSE_SECONDS, MOST_PAUSE_SECONDS]
    assert bench.api.asked == ["u0", "u1", "u0", "u1", "u0"]


@pytest.mark.parametrize(
    "later",
    [
        event("Pulling", "", "30", "Normal"),
        event("Pulled", "", "09", "Normal"),
        event("x", "", "31", "Normal", series=True),
    ],
)
async def test_a_later_success_ends_a_warning(bench: Bench, later: JsonObject) -> None:
    bench.api.events = {"u0": [event("FailedMount", MOUNT, "09"), later]}
    assert await bench.all_asked() == ["", ""]


async def test_the_latest_warning_is_reported(bench: Bench) -> None:
    before = event("Scheduled", "", "05", "Normal", series=True)
    words = "failed to set up sandbox container: plugin cni failed"
    bench.api.events = {"u0": [event("FailedCreatePodSandBox", words, "20"), before]}
    assert await bench.all_asked() == [f"FailedCreatePodSandBox: {words}", ""]


async def test_events_of_a_jobs_redis_are_read_first(bench: Bench) -> None:
    bench.redis = Pod("j-redis-0", "r", None, node="n1", started_at=NOW)
    bench.api.events = {"r": [event("FailedAttachVolume", "Multi-Attach error", "20")]}
    assert (await bench.look(SLOW_SECONDS))[0] == ["FailedAttachVolume: Multi-Attach error", "", ""]


async def test_no_events_are_read_for_running_deleted_or_explained_pods(bench: Bench) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"phase": PodPhase.RUNNING},
        {"gone_by": NOW},
        {"problem": "ImagePullBackOff"},
        {"node": ""},
        {"started_at": None},
    )
    bench.pods = tuple(replace(bench.pods[0], **change) for change in changes)
    assert (await bench.look(9999.0))[1] is None
    assert bench.api.asked == []


async def test_a_failed_read_of_events_fails_no_step_and_keeps_the_problems(bench: Bench) -> None:
    bench.pods = bench.pods[:1]
    bench.api.events = {"u0": [event("FailedMount", MOUNT, "09")]}
    await bench.look(SLOW_SECONDS)
    bench.api.fails = True
    assert (await bench.look(4 * SLOW_SECONDS))[0] == [f"FailedMount: {MOUNT}"]
    assert bench.api.asked == ["u0", "u0"]
