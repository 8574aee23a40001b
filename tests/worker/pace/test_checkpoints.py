"""The interval of checkpoints by store latency and fleet size, and its use by a worker."""

import asyncio
from typing import Any

import pytest

from openseer_core.queue.messages import ExtendReply
from openseer_store.memory import MemoryStore
from openseer_worker.pace import (
    CALLS,
    LONGEST_SECONDS,
    REQUESTS_PER_SECOND,
    WAITING_SHARE,
    CheckpointPace,
    ResponsePace,
)
from tests.worker.test_loop import Scene, job, play

SHORTEST = 0.25


def pace(lease_seconds: float = 10.0, shortest: float = SHORTEST) -> CheckpointPace:
    return CheckpointPace(shortest, lease_seconds)


def note(pace: CheckpointPace, latency: float = 0.002, inflight: int = 64, calls: int = CALLS) -> float:
    for _ in range(calls):
        pace.note(latency, inflight)
    return pace.seconds


def test_the_interval_is_the_jobs_at_first_and_with_a_fast_store() -> None:
    assert pace().seconds == SHORTEST
    assert note(pace()) == SHORTEST


def test_the_interval_grows_with_a_slow_store_and_shrinks_afterwards() -> None:
    found = pace()
    assert note(found, latency=0.05) == pytest.approx(0.05 / WAITING_SHARE)
    assert note(found, latency=0.1) == pytest.approx(0.1 / WAITING_SHARE)
    assert note(found) == SHORTEST


def test_a_single_slow_call_changes_nothing() -> None:
    found = pace()
    note(found)
    assert note(found, latency=30.0, calls=1) == SHORTEST


def test_the_interval_grows_with_the_fleet_before_the_store_is_slow() -> None:
    assert note(pace(), inflight=32_000) == pytest.approx(32_000 / REQUESTS_PER_SECOND)


@pytest.mark.parametrize(("lease_seconds", "longest"), [(10.0, LONGEST_SECONDS), (600.0, LONGEST_SECONDS), (3.0, 1.0)])
def test_the_interval_is_at_most_a_third_of_the_lease(lease_seconds: float, longest: float) -> None:
    assert note(pace(lease_seconds), latency=60.0) == pytest.approx(longest)
    assert note(pace(lease_seconds), inflight=10**7) == pytest.approx(longest)


def test_a_jobs_interval_above_the_limit_is_used() -> None:
    assert note(pace(60.0, shortest=5.0)) == 5.0


class SlowStore(MemoryStore):
    """A store that is slow for checkpoints and records their start times."""

    seconds = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.times: list[float] = []

    async def extend(self, *arguments: Any, **more: Any) -> ExtendReply:
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return await super().extend(*arguments, **more)


def test_a_worker_writes_checkpoints_less_often_while_the_store_is_slow() -> None:
    async def scenario() -> None:
        scene = Scene(job(maxTokens=10_000), [[10_000] * 4])
        store = scene.store = SlowStore(asyncio.get_running_loop().time)
        await scene.submit()
        scene.start(0)
        intervals: list[float] = []
        for store.seconds in (0.0, 0.1, 0.0):
            await asyncio.sleep(30)
            intervals.append(store.times[-1] - store.times[-2])
            [status] = await store.workers()
            assert status.heartbeat.metrics["checkpoint_seconds"] == pytest.approx(intervals[-1], abs=0.01)
        assert intervals == pytest.approx([SHORTEST, 0.1 / WAITING_SHARE, SHORTEST], abs=0.01)

    play(scenario)


def test_the_pace_is_known_after_two_seconds_and_follows_the_engine() -> None:
    pace = ResponsePace()
    for beat in range(8):
        pace.note({"a": 10 * beat}, 100.0 + beat / 4)
        assert pace.value == 0
    pace.note({"a": 80}, 102.0)
    assert pace.value == pytest.approx(40)
    for beat in range(60):
        pace.note({"b": 5 * beat, "c": 5 * beat}, 102.25 + beat / 4)
    assert pace.value == pytest.approx(20, rel=0.01)


def test_idle_time_does_not_count_as_a_slow_engine() -> None:
    pace = ResponsePace()
    pace.note({"a": 0, "b": 0}, 0.0)
    pace.note({"a": 50, "b": 50}, 2.0)
    pace.note({}, 500.0)
    assert pace.value == pytest.approx(25)
    pace.note({"c": 0, "d": 0}, 600.0)
    pace.note({"c": 25, "d": 25}, 601.0)
    assert pace.value == pytest.approx(25)


def test_short_responses_do_not_change_the_pace_of_the_others() -> None:
    pace = ResponsePace()
    for beat in range(100):
        come_and_gone = {f"{beat}-{index}": 1 for index in range(30)}
        pace.note({"stays": 25 * beat} | come_and_gone, beat / 4)
    assert pace.value == pytest.approx(100)


def test_paces_of_many_and_few_responses_are_separate() -> None:
    pace = ResponsePace()
    for beat in range(20):
        pace.note({str(index): 10 * beat for index in range(32)}, beat / 4)
    assert pace.value == pytest.approx(40)
    for beat in range(20, 28):
        assert pace.value == pytest.approx(40 if beat == 20 else 0)
        pace.note({str(index): 190 + 20 * (beat - 19) for index in range(8)}, beat / 4)
    assert pace.value == pytest.approx(80)
