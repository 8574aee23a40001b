"""The time metrics of workers."""

from openseer_core.worker.time_metrics import WorkerSeconds, mean_pace


def test_the_pace_of_a_response_is_the_mean_of_all_workers_that_count() -> None:
    fast, slow = WorkerSeconds(responses=10.0), WorkerSeconds(responses=30.0)
    assert mean_pace([(300.0, fast), (300.0, slow), (999.0, None)]) == 15.0


def test_before_anything_ran_no_pace_is_known() -> None:
    assert mean_pace([(0.0, WorkerSeconds()), (5.0, None)]) == 0.0
    assert mean_pace([]) == 0.0
