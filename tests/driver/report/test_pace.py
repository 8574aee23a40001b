"""The progress and pace of a run as text."""

import pytest

from openseer_core.worker.time_metrics import WorkerSeconds
from openseer_driver.report.pace import Pace, duration
from openseer_driver.run_lines import SampleLine, WorkerSample


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (48, "0:48"), (725, "12:05"), (3723, "1:02:03")])
def test_durations_are_printed_like_clock_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("inflight", "text"), [(30, "no request waits; 30 run"), (1, "no request waits; 1 runs")])
def test_the_facts_count_the_running_requests_once_none_waits(inflight: int, text: str) -> None:
    pace = Pace()
    pace.take(SampleLine(0.0, waiting=0, inflight=inflight, closed=50, requests=50 + inflight), 0.0)

    assert pace.facts()[-1] == text


@pytest.mark.parametrize(
    ("closed", "left", "shown"),
    [
        (10, 900.0, "0:09"),  # many are left: at the fleet's 100 tokens/s
        (98, 100.0, "0:05"),  # two are left: 50 tokens of each at 10 tokens/s, the pace of one response
        (98, 1.0, "–"),
        (98, 0.0, "–"),  # longer than expected
        (98, None, "–"),
        (100, 0.0, "0:00"),
    ],
)
def test_the_time_left_is_bounded_by_the_pace_of_one_response(closed: int, left: float | None, shown: str) -> None:
    pace = Pace()
    for second in range(2):
        worker = WorkerSample(tokens=100 * second, seconds=WorkerSeconds(responses=10.0 * second))
        line = SampleLine(0.0, 0, 0, closed, 100, 100 * second, {"worker-0": worker}, tokens_left=left)
        pace.take(line, float(second))

    assert pace.facts()[-1] == f"ETA {shown}"
