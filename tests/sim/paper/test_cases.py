"""The workloads of the paper, and the parameters that were fitted on veRL."""

from dataclasses import replace

import pytest

from openseer_sim.paper.calibration import ROUND_ROBIN, draft_cost, fit_lengths
from openseer_sim.paper.cases import CASES, GPU_BANDWIDTH, Fit, PaperCase
from openseer_sim.work import tokens_of

MOONLIGHT = CASES["moonlight"]
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@ALL
def test_a_case_divides_evenly_and_its_weights_fit(case: PaperCase) -> None:
    assert case.gpus % case.gpus_per_instance == 0
    assert case.requests % case.group == 0
    assert case.kv_tokens > 2 * case.cap


@ALL
def test_drawn_lengths_have_the_reported_mean_and_cap(case: PaperCase) -> None:
    work = case.work(1)
    assert sum(len(group.lengths) for group in work) == case.requests
    assert tokens_of(work) / case.requests == pytest.approx(case.mean, rel=0.15)
    assert max(max(group.lengths) for group in work) <= case.cap


@ALL
def test_a_step_is_never_faster_than_the_published_peaks(case: PaperCase) -> None:
    peak = GPU_BANDWIDTH * case.gpus_per_instance
    for tokens in (1, 64, 1024):
        assert case.step().base(tokens) > case.model.read(tokens) / peak
    assert 0.3 < case.fit.efficiency < 1


@ALL
def test_more_tokens_of_a_step_read_more_experts_up_to_all(case: PaperCase) -> None:
    reads = [case.model.read(tokens) for tokens in (1, 8, 64, 4096)]
    assert reads == sorted(reads)
    assert reads[-1] == pytest.approx(case.model.weights)


@ALL
def test_a_part_of_a_case_has_as_many_requests_per_instance(case: PaperCase) -> None:
    part = case.scaled(0.25)
    assert part.requests / part.instances == pytest.approx(case.requests / case.instances, rel=0.01)
    assert part.kv_tokens == case.kv_tokens


def test_moonlight_reproduces_the_total_and_tail_of_verl() -> None:
    figures = MOONLIGHT.figures
    for seed in (1, 2):
        outcome = ROUND_ROBIN(MOONLIGHT.fleet(), MOONLIGHT.work(seed), MOONLIGHT.cap)
        part = outcome.tail_seconds / outcome.seconds
        assert outcome.seconds == pytest.approx(figures.verl_total, rel=0.1)
        assert part == pytest.approx(figures.verl_tail / figures.verl_total, abs=0.1)


def test_half_the_efficiency_takes_twice_as_long() -> None:
    small = MOONLIGHT.scaled(0.1)
    slow = replace(small, fit=replace(small.fit, efficiency=small.fit.efficiency / 2))
    fast = ROUND_ROBIN(small.fleet(), small.work(1), small.cap)
    assert ROUND_ROBIN(slow.fleet(), small.work(1), small.cap).seconds == pytest.approx(2 * fast.seconds, rel=1e-3)


def test_lengths_are_fitted_from_any_start_and_for_the_correlation_given() -> None:
    fitted = fit_lengths(replace(MOONLIGHT.scaled(0.1), fit=Fit(0.1, 9.0, 0.0)), 0.6, (1,))
    assert fitted.fit.correlation == 0.6
    assert 0.3 < fitted.fit.efficiency < 1
    total = ROUND_ROBIN(fitted.fleet(), fitted.work(1), fitted.cap).seconds
    assert total == pytest.approx(MOONLIGHT.figures.verl_total, rel=0.01)


def test_the_cost_of_a_drafted_token_is_positive_and_small() -> None:
    assert 0 < draft_cost(MOONLIGHT.scaled(0.1), (1,)) < 0.002
