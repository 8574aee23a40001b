"""Whole rollouts of a small fleet, under every system."""

from dataclasses import replace

import pytest

from openseer_sim.drafts import DraftModel
from openseer_sim.engine import StepTime
from openseer_sim.fleet import Loss, ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.systems import bound_by, divided_by
from openseer_sim.work import LengthModel, tokens_of

CAP = 4_096
STEP = StepTime(((1.0, 0.01), (1_000.0, 0.02)), per_context=1e-8, per_prefill=1e-6)
FLEET = ModelledFleet(4, STEP, kv_tokens=40_000, slots=8, look_seconds=0.5)
WORK = LengthModel(1_000, CAP, spread=1.2, correlation=0.7).draw(32, 4, seed=1, prompt=64)
ROUND_ROBIN, LEAST = bound_by("round-robin"), bound_by("least-inflight")
FIFO, AWARE, ORACLE = (divided_by(name, 128) for name in ("fifo", "context-aware", "longest-first-oracle"))


def played(system: str = "context-aware", fleet: ModelledFleet = FLEET) -> Outcome:
    systems = {"round-robin": ROUND_ROBIN, "least": LEAST, "fifo": FIFO, "context-aware": AWARE, "oracle": ORACLE}
    return systems[system](fleet, WORK, CAP)


@pytest.mark.parametrize("system", ["round-robin", "least", "fifo", "context-aware", "oracle"])
def test_every_response_ends_once_with_all_its_tokens(system: str) -> None:
    outcome = played(system)
    assert len(outcome.ends) == 32 * 4
    assert outcome.tokens == tokens_of(WORK)
    assert 0 <= outcome.idle < 1


@pytest.mark.parametrize("system", ["round-robin", "context-aware"])
def test_a_simulated_rollout_is_the_same_each_time(system: str) -> None:
    assert played(system) == played(system)


@pytest.mark.parametrize(("count", "seconds"), [(8, 0.0), (19, 1.0), (20, 2.0)])
def test_the_tail_has_at_most_a_tenth_of_the_responses(count: int, seconds: float) -> None:
    ends = [float(count - ended) for ended in range(count)]
    assert Outcome(ends, busy=[1.0], tokens=1).tail_seconds == seconds


def test_true_lengths_beat_groups_bound_to_an_instance() -> None:
    bound, oracle = played("round-robin"), played("oracle")
    assert oracle.seconds < bound.seconds
    assert oracle.tail_seconds < bound.tail_seconds / 2
    assert oracle.idle < bound.idle


def test_engines_without_room_preempt_and_compute_again() -> None:
    tight = played("round-robin", replace(FLEET, kv_tokens=8_000))
    assert tight.preemptions > 0
    assert tight.computed_again > 0
    assert tight.seconds > played("round-robin").seconds


def test_divided_rollout_never_preempts() -> None:
    assert played("context-aware", replace(FLEET, kv_tokens=8_000)).preemptions == 0


def test_contexts_that_move_are_not_computed_again() -> None:
    tight = replace(FLEET, kv_tokens=8_000)
    again, moved = played(fleet=tight), played(fleet=replace(tight, move_seconds=0.0))
    assert again.moves > 0
    assert again.computed_again > moved.computed_again == 0


def test_siblings_do_not_replace_each_other_at_every_quantum() -> None:
    one_at_a_time = replace(FLEET, instances=2, slots=1)
    outcome = divided_by("context-aware", 16)(one_at_a_time, WORK[:8], CAP)
    assert outcome.moves < 5 * len(outcome.ends)
    assert outcome.computed_again < 2 * outcome.tokens


def test_a_lost_instance_costs_time_and_no_response() -> None:
    lost = played(fleet=replace(FLEET, move_seconds=0.0, losses=(Loss(5.0, 1, 30.0),)))
    assert len(lost.ends) == 32 * 4
    assert lost.computed_again > 0
    assert lost.seconds > played(fleet=replace(FLEET, move_seconds=0.0)).seconds


@pytest.mark.parametrize("system", ["round-robin", "context-aware"])
def test_drafts_shorten_a_rollout(system: str) -> None:
    drafts = DraftModel.of_lengths(((0, 1.7), (7, 2.4)))
    assert played(system, replace(FLEET, drafts=drafts)).seconds < played(system).seconds


def test_drawn_lengths_have_the_given_mean_and_cap() -> None:
    groups = LengthModel(1_000, CAP, spread=1.0, correlation=0.8).draw(2_000, 8, seed=3)
    assert tokens_of(groups) / 16_000 == pytest.approx(1_000, rel=0.06)
    assert max(max(group.lengths) for group in groups) == CAP
    assert groups == LengthModel(1_000, CAP, spread=1.0, correlation=0.8).draw(2_000, 8, seed=3)
