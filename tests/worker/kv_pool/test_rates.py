"""Contexts are fetched while that is faster than computing them; else a fetch is tried now and then."""

from openseer_worker.kv_pool.rates import COUNTED_TOKENS, TRIAL_EVERY, Rates


def computing(rates: Rates, tokens_per_second: float) -> None:
    """Notes context steps at that speed, between small ones that carry no weight."""
    now = 100.0
    for _ in range(20):
        rates.step(2 * COUNTED_TOKENS, now)
        now += 2 * COUNTED_TOKENS / tokens_per_second
        rates.step(1, now)
        now += 50.0


def test_contexts_are_fetched_before_rates_are_known() -> None:
    rates = Rates()
    assert rates.worth_a_fetch()
    computing(rates, 1e6)
    assert rates.worth_a_fetch(), "no fetch has been measured yet"


def test_a_pool_faster_than_the_engine_is_always_used() -> None:
    rates = Rates()
    computing(rates, 1000)
    rates.fetched(1000, 0.5)
    assert all(rates.worth_a_fetch() for _ in range(100))


def test_a_pool_slower_than_the_engine_is_only_tried() -> None:
    rates = Rates()
    computing(rates, 1000)
    rates.fetched(1000, 2.0)
    assert sum(rates.worth_a_fetch() for _ in range(10 * TRIAL_EVERY)) == 10


def test_a_pool_that_recovers_its_speed_is_used_again() -> None:
    rates = Rates()
    computing(rates, 1000)
    rates.fetched(4000, 40.0)
    assert not rates.worth_a_fetch()
    for _ in range(12):
        rates.fetched(4000, 0.4)
    assert rates.worth_a_fetch()


def test_long_contexts_have_more_weight_than_short_ones() -> None:
    rates = Rates()
    computing(rates, 1000)
    rates.fetched(100, 0.3)  # mostly the fixed latency of a fetch
    rates.fetched(8000, 1.0)
    assert rates.worth_a_fetch()
