"""Draft lengths, from the cost of steps and the acceptance of earlier drafts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_draft.drafter import StepCosts
from tests.draft.desk import Desk, pack

RESPONSE = [int(token) for token in np.random.default_rng(5).integers(0, 50, 600)]
GRID = [(rows, rows * drafts) for rows in (1, 2, 4, 8, 16) for drafts in (0, 1, 2, 4, 8)]


def taught(desk: Desk, per_token: float) -> Desk:
    """Teaches the drafter the step time 1 + per_token × tokens, in seconds, at all sizes of GRID."""
    for _ in range(10):
        for rows, drafted in GRID:
            desk.drafter.costs.learn(rows, drafted, 1.0 + per_token * (rows + drafted))
    return desk


def drafted(desk: Desk, steps: int = 100) -> float:
    desk.drafter.append("g", 1, 0, pack(RESPONSE))
    slot = desk.open("g", 0)
    return sum(len(desk.step({slot: [token]})[slot]) for token in RESPONSE[:steps]) / steps


def test_drafts_are_long_at_no_cost_and_absent_at_a_high_cost() -> None:
    assert drafted(taught(Desk(adaptive=True), 0.0)) > 6
    assert 1 < drafted(taught(Desk(adaptive=True), 0.05)) <= 8
    dear = Desk(adaptive=True)
    for rows, tokens in GRID:
        dear.drafter.costs.learn(rows, tokens, 10.0 + tokens if tokens else 1.0)
    assert drafted(dear) < 0.1


def test_an_origin_that_is_always_wrong_is_soon_not_used() -> None:
    desk = taught(Desk(adaptive=True), 0.1)
    chance = np.random.default_rng(9)
    desk.drafter.append("g", 1, 0, pack(list(range(40)) * 20))
    slot = desk.open("g", 0)
    lengths = [len(desk.step({slot: [int(chance.integers(0, 40))]})[slot]) for _ in range(400)]
    assert sum(lengths[-100:]) < 0.3 * sum(lengths[:100])


def test_a_more_important_request_has_longer_drafts() -> None:
    desk = taught(Desk(adaptive=True), 0.35)
    desk.drafter.append("g", 9, 0, pack(RESPONSE))
    important, plain = desk.open("g", 0), desk.open("g", 1)
    desk.drafter.set_importance(important, 4.0)
    lengths = {important: 0, plain: 0}
    for token in RESPONSE[:100]:
        for slot, draft in desk.step({important: [token], plain: [token]}).items():
            lengths[slot] += len(draft)
    assert lengths[important] > 1.2 * lengths[plain]


def test_costs_that_change_during_a_run_change_the_drafts() -> None:
    desk = taught(Desk(adaptive=True, max_tokens=1), 0.0)
    desk.drafter.append("g", 1, 0, pack(RESPONSE))
    slot = desk.open("g", 0)
    for token in RESPONSE[:20]:
        assert desk.step({slot: [token]}) is not None
    lengths: list[int] = []
    for token in RESPONSE * 5:
        # From now on a step with a draft takes three times as long as one without, for at most two tokens.
        lengths.append(len(desk.step({slot: [token]}, 3.0 if lengths and lengths[-1] else 1.0)[slot]))
    assert sum(lengths[-100:]) < 0.3 * sum(lengths[:100])


@given(st.floats(1e-4, 1.0), st.floats(0.0, 0.2))
def test_step_times_are_interpolated_between_measured_sizes(base: float, slope: float) -> None:
    costs = StepCosts()
    for _ in range(40):
        for rows, tokens in GRID:
            costs.learn(rows, tokens, base * (1 + slope * (rows + tokens)))
    for rows, tokens in ((1, 3), (3, 0), (6, 10), (12, 60)):
        assert costs.seconds(rows, tokens) == pytest.approx(base * (1 + slope * (rows + tokens)), rel=0.15)


def test_sizes_without_measurements_are_as_slow_as_those_near_them() -> None:
    costs = StepCosts()
    for rows in (1, 16):
        costs.learn(rows, 0, 0.2)
        costs.learn(rows, rows, 0.3)
    assert 0.15 < costs.seconds(4, 0) < 0.3
    assert 0.19 < costs.seconds(16, 8) < 0.35
    assert costs.seconds(16, 64) > 0.28


def test_one_slow_step_counts_little() -> None:
    costs = StepCosts()
    for _ in range(50):
        costs.learn(4, 8, 0.01)
    costs.learn(4, 8, 10.0)
    assert costs.seconds(4, 8) < 0.013
