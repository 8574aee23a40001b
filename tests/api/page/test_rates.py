"""Tokens per second of workers, by the counters of their heartbeats."""

from openseer_api.job.context import FleetSnapshot
from openseer_api.page.lanes import FleetSeries, TokenRates
from openseer_core.queue.batch import QueueLoad
from openseer_core.worker.heartbeat import Heartbeat, WorkerMetrics, WorkerState, WorkerStatus

RATE = 500.0


def status(at: float) -> WorkerStatus:
    """The status of a worker whose token counter grows by 1,000 every two seconds."""
    metrics = WorkerMetrics({"tokens": int(at // 2) * 1000})
    return WorkerStatus("worker-0", "a", at, 1, Heartbeat(WorkerState.BUSY, metrics))


def seen(*times: float) -> list[float | None]:
    """The rate after each heartbeat."""
    rates, told = TokenRates(), list[float | None]()
    for at in times:
        rates.note([status(at)])
        told.append(rates.of(status(at)))
    return told


def test_a_rate_is_given_once_its_window_is_three_seconds() -> None:
    assert [rate is not None for rate in seen(10.0, 11.0, 12.0, 13.0, 14.0)] == [False, False, False, True, True]


def test_a_pause_without_viewers_gives_no_spike() -> None:
    told = seen(*map(float, [*range(10, 20), *range(100, 110)]))
    assert told[10:13] == [None, None, None]
    assert all(rate <= 1.5 * RATE for rate in told if rate is not None)


def test_a_point_without_a_rate_is_a_gap_not_zero() -> None:
    series, rates = FleetSeries(), TokenRates()
    for at in (10.0, 11.0, 12.0, 14.0):
        rates.note([status(at)])
        series.note(FleetSnapshot(workers=[status(at)], now=at), QueueLoad(), rates)
    assert series.columns().tokens_per_second == [None, None, None, RATE]
