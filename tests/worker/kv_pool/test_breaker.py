"""A pool that fails is left alone for a while, then tried by one."""

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


def test_failures_in_a_row_take_the_pool_out() -> None:
    breaker = broken(Clock())
    assert breaker.is_out
    assert breaker.reason == f"failure {FAILURES - 1}"


def test_a_success_between_failures_keeps_it_in() -> None:
    breaker = Breaker(Clock())
    for _ in range(3 * FAILURES):
        breaker.failed("slow")
        breaker.succeeded()
    assert not breaker.is_out


def test_after_its_time_out_one_caller_tries() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += OUT_SECONDS
    assert [breaker.is_out for _ in range(3)] == [False, True, True]


def test_a_trial_that_succeeds_brings_it_back() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += OUT_SECONDS
    assert not breaker.is_out
    breaker.succeeded()
    assert [breaker.is_out for _ in range(3)] == [False, False, False]


def test_a_trial_that_fails_keeps_it_out_as_long_again() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += OUT_SECONDS
    assert not breaker.is_out
    breaker.failed("again")
    clock.now += OUT_SECONDS - 1
    assert breaker.is_out
    clock.now += 1
    assert not breaker.is_out
