"""The pace of a run as text."""

import pytest

from openseer_driver.report.pace import duration


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (48, "0:48"), (725, "12:05"), (3723, "1:02:03")])
def test_durations_are_printed_like_clock_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text
