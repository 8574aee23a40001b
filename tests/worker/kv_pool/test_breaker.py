"""A failing pool is disabled for a pause, then tried by one caller."""

from openseer_worker.kv_pool.breaker import FAILURES, OUT_SECONDS, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for number in range(FAILURES):
        assert not breaker.is_out
        breaker.failed(f"failure {number}")
    return breaker


def test_consecutive_failures_disable_the_pool() -> None:
    breaker = broken(Clock())
    assert breaker.is_out
    assert breaker.reason == f"failure {FAILURES - 1}"


def test_a_success_between_failures_keeps_the_pool_enabled() -> None:
    breaker = Breaker(Clock())
    for _ in range(3 * FAILURES):
        breaker.failed("slow")
        breaker.succeeded()
    assert not breaker.is_out


def test_after_the_pause_one_caller_tries_the_pool() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += OUT_SECONDS
    assert [breaker.is_out for _ in range(3)] == [False, True, True]


def test_a_successful_trial_enables_the_pool() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += OUT_SECONDS
    assert not breaker.is_out
    breaker.succeeded()
    assert [breaker.is_out for _ in range(3)] == [False, False, False]


def test_a_failed_trial_disables_the_pool_for_another_pause() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += OUT_SECONDS
    assert not breaker.is_out
    breaker.failed("again")
    clock.now += OUT_SECONDS - 1
    assert breaker.is_out
    clock.now += 1
    assert not breaker.is_out
