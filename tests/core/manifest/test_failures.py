"""The number of a member's failures that count, and the time for which they count."""

import pytest

from openseer_core.manifest.failures import RESTART_WINDOW_SECONDS, FailurePolicy

HOUR = 3600


@pytest.mark.parametrize(
    ("count", "hours", "left"), [(3, 0, 3), (3, 5.9, 3), (3, 6, 2), (3, 13, 1), (3, 18, 0), (3, 900, 0), (0, 900, 0)]
)
def test_one_failure_is_forgotten_per_window(count: int, hours: float, left: int) -> None:
    assert FailurePolicy().remembered(count, 1000.0, 1000.0 + hours * HOUR)[0] == left


def test_windows_that_have_passed_are_not_counted_twice() -> None:
    policy = FailurePolicy(restart_window_seconds=100)
    count, since = policy.remembered(3, 0.0, 150.0)
    assert (count, since) == (2, 100.0)
    assert policy.remembered(count, since, 199.0) == (2, 100.0)
    assert policy.remembered(count, since, 200.0) == (1, 200.0)


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    assert FailurePolicy().remembered(2, 1000.0, 10.0) == (2, 1000.0)


def test_the_default_window_is_the_documented_one() -> None:
    described = FailurePolicy.model_fields["restart_window_seconds"].description or ""
    assert f"Unset: {RESTART_WINDOW_SECONDS}" in described
