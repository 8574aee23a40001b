"""The progress and pace of a run as text."""

import pytest

from openseer_driver.report.pace import Pace, duration
from openseer_driver.run_lines import SampleLine


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (48, "0:48"), (725, "12:05"), (3723, "1:02:03")])
def test_durations_are_printed_like_clock_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("inflight", "text"), [(30, "no request waits; 30 run"), (1, "no request waits; 1 runs")])
def test_the_facts_count_the_running_requests_once_none_waits(inflight: int, text: str) -> None:
    pace = Pace()
    pace.take(SampleLine(0.0, waiting=0, inflight=inflight, closed=50, requests=50 + inflight), 0.0)

    assert pace.facts()[-1] == text
