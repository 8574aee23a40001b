"""Steps in closed form, compared with steps that are computed one by one."""

import pytest

from openseer_sim.drafts import DraftModel, tokens_of_step
from openseer_sim.engine import ModelledEngine, StepTime

STEP = StepTime(((1.0, 0.010), (8.0, 0.010), (16.0, 0.018)), per_context=1e-6, per_prefill=1e-5)


def stepwise(contexts: list[int], steps: int) -> float:
    """Seconds of `steps` steps, computed one by one."""
    total = sum(contexts)
    return sum(STEP.base(len(contexts)) + STEP.per_context * (total + len(contexts) * step) for step in range(steps))


def test_many_steps_in_closed_form_take_as_long_as_one_by_one() -> None:
    engine = ModelledEngine(STEP)
    for number, context in enumerate((100, 2_000, 50)):
        engine.add(str(number), context, 10_000)
    assert engine.time_of(4_000) == pytest.approx(stepwise([100, 2_000, 50], 4_000), rel=1e-3)


def test_settling_to_the_time_of_some_steps_makes_these_steps() -> None:
    engine = ModelledEngine(STEP)
    engine.add("a", 100, 500)
    engine.add("b", 100, 900)
    engine.settle(engine.time_of(engine.steps_to_end()))
    assert engine.left("a") == pytest.approx(0, abs=1e-6)
    assert engine.left("b") == pytest.approx(400)
    assert engine.context == pytest.approx(1_200)


def test_the_delay_by_a_context_counts_as_busy() -> None:
    engine = ModelledEngine(STEP)
    engine.add("a", 1_000, 10, holds=0.5)
    engine.settle(0.4)
    assert engine.gained("a") == 0
    engine.settle(engine.time_of(10))
    assert engine.left("a") == pytest.approx(0, abs=1e-6)
    assert engine.busy > 0.5


def test_a_response_that_leaves_frees_its_context() -> None:
    engine = ModelledEngine(STEP)
    engine.add("a", 1_000, 100)
    engine.add("b", 10, 100)
    engine.settle(engine.time_of(50))
    assert engine.remove("a") == pytest.approx(50)
    assert engine.context == pytest.approx(60)


def test_a_change_of_pace_keeps_the_gained_tokens() -> None:
    engine = ModelledEngine(STEP)
    engine.add("a", 10, 1_000)
    engine.settle(engine.time_of(100))
    engine.set_pace("a", 2.5, 9.0)
    engine.settle(engine.time_of(100))
    assert engine.gained("a") == pytest.approx(350)
    assert engine.context == pytest.approx(360)


def test_a_step_between_two_measured_points_lies_on_their_line() -> None:
    assert STEP.base(12) == pytest.approx(0.014)
    assert STEP.base(24) == pytest.approx(0.026)
    assert STEP.base(0.5) == pytest.approx(0.010)


def test_the_roofline_bends_where_computing_takes_as_long_as_reading() -> None:
    step = StepTime.roofline(32e9, 3e9, 31e3, bandwidth=2e12, flops=4e14, overhead=0.008)
    assert step.base(1) == pytest.approx(0.024)
    assert step.base(1_000) == pytest.approx(0.024)
    assert step.base(2_000) == pytest.approx(0.038)


def test_drafts_accept_as_many_tokens_as_they_were_fitted_to() -> None:
    drafts = DraftModel.of_lengths(((0, 1.70), (5, 2.32)), longest=8)
    assert tokens_of_step(drafts.probability(0), 8) == pytest.approx(1.70)
    assert tokens_of_step(drafts.probability(9), 8) == pytest.approx(2.32)
    assert drafts.probability(0) < drafts.probability(2) < drafts.probability(5)


def test_drafts_are_shorter_with_more_running_requests() -> None:
    drafts = DraftModel.of_lengths(((0, 1.70), (5, 2.32)), longest=8)
    lengths = [drafts.length(STEP, running, 0.0, 0.5) for running in (1, 4, 16)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]
