"""Turns: a rate over all who ask, in the order in which they asked."""

from openseer_operator.kube.rate_limiter import BURST_SECONDS, RateLimiter

JOB, OTHER = ("lab", "a"), ("lab", "b")


def test_no_more_turns_are_given_than_the_rate_allows() -> None:
    limiter, given = RateLimiter(10.0), 0
    for step in range(1000):
        now = 100.0 + step / 100
        given += sum(limiter.wait(JOB, f"job-{number}", now) == 0.0 for number in range(50))
    assert 100 <= given <= 100 + 10 * BURST_SECONDS + 1


def test_who_comes_when_told_gets_the_turn_and_none_is_passed_over() -> None:
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


def test_asking_again_does_not_lose_the_place() -> None:
    limiter = RateLimiter(1.0)
    while limiter.wait(JOB, "one", 100.0) == 0.0:
        pass
    first = limiter.wait(JOB, "one", 100.0)
    for _ in range(10):
        assert limiter.wait(JOB, "one", 100.0) == first


def test_turns_of_who_is_gone_go_to_others_and_are_not_remembered() -> None:
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


def test_turns_that_were_given_back_and_are_past_are_not_saved_up() -> None:
    limiter = RateLimiter(1.0)
    for number in range(100):
        limiter.wait(JOB, f"pod-{number}", 100.0)
    limiter.keep(JOB, ())
    taken = sum(limiter.wait(OTHER, f"pod-{number}", 1000.0) == 0.0 for number in range(10))
    assert taken <= 1 + BURST_SECONDS
