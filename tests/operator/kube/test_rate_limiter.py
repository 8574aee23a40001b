"""Turns: a rate over all who ask, in the order in which they asked."""

from openseer_operator.kube.rate_limiter import BURST_SECONDS, RateLimiter


def test_no_more_turns_are_given_than_the_rate_allows() -> None:
    limiter, given = RateLimiter(10.0), 0
    for step in range(1000):
        now = 100.0 + step / 100
        given += sum(limiter.wait(f"job-{number}", now) == 0.0 for number in range(50))
    assert 100 <= given <= 100 + 10 * BURST_SECONDS + 1


def test_who_comes_when_told_gets_the_turn_and_none_is_passed_over() -> None:
    limiter = RateLimiter(1.0)
    now = 100.0
    while limiter.wait("first", now) == 0.0:
        pass
    due = {name: now + limiter.wait(name, now) for name in ("first", "second", "third")}
    assert list(due.values()) == sorted(due.values())
    assert len(set(due.values())) == 3
    for name, at in due.items():
        assert limiter.wait(name, at - 0.01) > 0.0
        assert limiter.wait(name, at) == 0.0


def test_asking_again_does_not_lose_the_place() -> None:
    limiter = RateLimiter(1.0)
    while limiter.wait("one", 100.0) == 0.0:
        pass
    first = limiter.wait("one", 100.0)
    for _ in range(10):
        assert limiter.wait("one", 100.0) == first
