"""The number of workers for a backlog: it grows with the backlog, stays within bounds, settles and rises from zero."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core.plan.backlog import Backlog, ScalingState, decide, measured, recommended, target_seconds
from openseer_core.queue.messages import BatchProgress
from tests.core.plan.cluster_model import Cluster, make_job, serving

LOOK = 10.0
"""Seconds between two observations."""
SECONDS = st.floats(1, 10_000)
BACKLOGS = st.builds(
    Backlog,
    requests=st.integers(1, 10**6),
    tokens=st.integers(1, 10**9),
    speed=st.just(0.0) | st.floats(1, 10_000),
    start_seconds=st.floats(0, 1000),
)


def autoscaled(**autoscale: int) -> Cluster:
    job = make_job(workers={"replicas": 1, "max": 20, "autoscale": autoscale})
    return Cluster(serving(job), worker_speed=100.0)


def desired(cluster: Cluster, unfinished: int, **progress: Any) -> int:
    """The desired number of workers for `unfinished` requests, of 512 tokens each while no length is known."""
    cluster.progress = BatchProgress(groups=1, requests=unfinished, **progress)
    for _ in range(2):  # the store answers at the second step
        cluster.step()
    cluster.tick()
    assert cluster.memory.desired is not None
    return cluster.memory.desired


@given(
    backlog=BACKLOGS, more=st.integers(0, 10**6), present=st.integers(0, 1000), target=SECONDS, start=st.integers(0, 99)
)
def test_a_larger_backlog_never_needs_fewer_workers(
    backlog: Backlog, more: int, present: int, target: float, start: int
) -> None:
    larger = replace(backlog, requests=backlog.requests + more, tokens=backlog.tokens + more)
    few = recommended(backlog, present, target, start)
    assert 1 <= few <= backlog.requests
    assert few <= recommended(larger, present, target, start)


@given(backlog=BACKLOGS, present=st.integers(1, 1000), target=SECONDS)
def test_workers_that_are_enough_stay_enough(backlog: Backlog, present: int, target: float) -> None:
    waits = replace(backlog, requests=10**9)
    number = recommended(waits, present, target, 1)
    useful = target - backlog.start_seconds
    if backlog.speed and useful > 0:
        assert recommended(waits, number, target, 1) <= number


def test_a_new_workers_start_counts_against_its_useful_time() -> None:
    waits = Backlog(requests=1000, tokens=60_000, speed=100.0, start_seconds=100.0)
    assert recommended(waits, 0, 200.0, 1) == 6
    assert recommended(waits, 1, 200.0, 1) == 1 + 4
    assert recommended(waits, 3, 200.0, 1) == 3
    assert recommended(waits, 2, 90.0, 1) == 2


def test_the_target_follows_from_the_jobs_target_and_deadline() -> None:
    assert target_seconds(None, None, 10.0) == 600.0
    assert target_seconds(60.0, None, 10.0) == 60.0
    assert target_seconds(60.0, None, 100.0) == 200.0
    assert target_seconds(None, 3000.0, 10.0) == 3000.0
    assert target_seconds(60.0, 40.0, 100.0) == 40.0


def test_a_measurement_that_hardly_differs_changes_nothing() -> None:
    assert [measured(100.0, found) for found in (None, 0.0, -5.0, 95.0, 110.0, 120.0)] == [100.0] * 5 + [120.0]
    assert measured(0.0, 5.0) == 5.0


def test_a_fleet_shrinks_to_the_peak_need_of_the_whole_window() -> None:
    state, number = ScalingState(), 10
    for second, wanted in ((0, 4), (100, 7), (200, 3), (299, 2)):
        decision = decide(wanted, number, state, float(second), idle=False, window=300.0, patience=60.0)
        assert (decision.workers, decision.due) == (10, 300.0)
        state = decision.scaling
    assert decide(2, number, state, 300.0, idle=False, window=300.0, patience=60.0).workers == 7
    assert decide(10, number, state, 250.0, idle=False, window=300.0, patience=60.0).scaling == ScalingState()


@pytest.mark.parametrize("tokens", [10_000, 59_000, 60_000, 123_456, 600_000, 1_000_000])
def test_noise_does_not_make_the_number_flap(tokens: int) -> None:
    number, state, changes, noise = 1, ScalingState(), 0, Random(tokens)
    for look in range(300):
        part = noise.uniform(-0.04, 0.04)
        waits = Backlog(requests=10**6, tokens=round(tokens * (1 + part)), speed=100.0, start_seconds=60.0)
        wanted = recommended(waits, number, 600.0, 1)
        decision = decide(wanted, number, state, look * LOOK, idle=False, window=300.0, patience=300.0)
        changes += decision.workers != number
        number, state = decision.workers, decision.scaling
    # At most three changes: up from one worker at once, up again by noise, down once to the need.
    assert changes <= 3


@settings(max_examples=20)
@given(waits=st.lists(st.integers(0, 5000), max_size=5), low=st.integers(0, 3), high=st.integers(3, 9))
def test_the_number_stays_within_min_and_max(waits: list[int], low: int, high: int) -> None:
    cluster = autoscaled()
    cluster.change(workers={"replicas": 3, "min": low, "max": high})
    for unfinished in waits:
        assert low <= desired(cluster, unfinished) <= high


def test_a_maximum_that_is_lowered_holds_at_once() -> None:
    cluster = autoscaled(targetSeconds=60)
    assert desired(cluster, 5000) == 20
    cluster.change(workers={"max": 4})
    assert desired(cluster, 5000) == 4


def test_without_a_measurement_a_fleet_has_the_specs_replicas() -> None:
    cluster = autoscaled()
    cluster.worker_speed = None
    cluster.change(workers={"replicas": 3})
    assert desired(cluster, 0) == 3
    assert desired(cluster, 5000) == 3


def test_the_lengths_of_a_finished_batch_size_the_next_one() -> None:
    cluster = autoscaled(targetSeconds=600)
    desired(cluster, 100, tokens=200_000, ok=100)
    assert cluster.memory.backlog.length == 2000.0
    desired(cluster, 50)
    assert cluster.memory.backlog.tokens == 100_000


def test_a_job_that_others_scale_keeps_its_replicas_and_reports_its_need() -> None:
    cluster = Cluster(serving(make_job(workers={"replicas": 2, "max": 9})), worker_speed=100.0)
    assert desired(cluster, 3000) == 2
    assert cluster.memory.backlog.workers == 9
    cluster.change(workers={"replicas": 3})
    assert desired(cluster, 3000) == 3


def test_a_nearer_deadline_needs_more_workers() -> None:
    def workers_at(deadline: int) -> int:
        job = make_job(workers={"replicas": 1, "max": 20, "autoscale": {}}, activeDeadlineSeconds=deadline)
        return desired(Cluster(job, worker_speed=100.0), 1000)

    assert workers_at(100_000) == 1
    assert 1 < workers_at(3000) < workers_at(1500) <= 20
