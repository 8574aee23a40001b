"""The rate limiter: turns at a rate over all callers, in the order of their requests."""

from openseer_operator.kube.rate_limiter import BURST_SECONDS, RateLimiter

JOB, OTHER = ("lab", "a"), ("lab", "b")


def test_the_number_of_turns_never_exceeds_the_rate() -> None:
    limiter, given = RateLimiter(10.0), 0
    for step in range(1000):
        now = 100.0 + step / 100
        given += sum(limiter.wait(JOB, f"job-{number}", now) == 0.0 for number in range(50))
    assert 100 <= given <= 100 + 10 * BURST_SECONDS + 1


def test_a_caller_at_its_given_time_gets_its_turn() -> None:
    limiter = RateLimiter(1.0)
    now = 100.0
    while limiter.wait(JOB, "first", now) == 0.0:
        pass
    due = {name: now + limiter.wait(JOB, name, now) for name in ("first", "second", "third")}
    assert list(due.values()) == sorted(due.values())
    assert len(set(due.values())) == 3
    for name, at in due.items():
        assert limiter.wait(JOB, name, at - 0.01) > 0.0
        assert limiter.wait(JOB, name, at) == 0.0


def test_a_repeated_request_keeps_its_turn() -> None:
    limiter = RateLimiter(1.0)
    while limiter.wait(JOB, "one", 100.0) == 0.0:
        pass
    first = limiter.wait(JOB, "one", 100.0)
    for _ in range(10):
        assert limiter.wait(JOB, "one", 100.0) == first


def test_turns_of_ended_callers_are_reassigned_and_forgotten() -> None:
    limiter = RateLimiter(10.0)
    for number in range(1000):
        limiter.wait(JOB, f"pod-{number}", 100.0)
    assert limiter.wait(OTHER, "late", 100.0) > 90.0
    limiter.keep(OTHER, ())
    limiter.keep(JOB, {"pod-999"})
    assert len(limiter) == 1
    waits = [limiter.wait(OTHER, f"pod-{number}", 100.0) for number in range(10)]
    assert max(waits) <= 1.0
    assert len(set(waits)) == 10
    limiter.keep(JOB, ())
    limiter.keep(OTHER, ())
    assert len(limiter) == 0


def test_returned_turns_of_the_past_are_not_accumulated() -> None:
    limiter = RateLimiter(1.0)
    for number in range(100):
        limiter.wait(JOB, f"pod-{number}", 100.0)
    limiter.keep(JOB, ())
    taken = sum(limiter.wait(OTHER, f"pod-{number}", 1000.0) == 0.0 for number in range(10))
    assert taken <= 1 + BURST_SECONDS
