"""All systems on a workload, compared with veRL."""

import pytest

from openseer_sim.paper import sensitivity
from openseer_sim.paper.cases import CASES
from openseer_sim.paper.sensitivity import LOSS_EVERY, variations
from openseer_sim.paper.study import APRIL, SEER, VERL, paper_systems, study

MOONLIGHT = CASES["moonlight"]
TINY = MOONLIGHT.scaled(0.0625)


def test_ratios_are_those_of_an_instance_against_verl_on_the_whole_fleet() -> None:
    asked = [system for system in paper_systems(MOONLIGHT) if system.name in (VERL, "StreamRL, true lengths")]
    verl, streamrl = study(MOONLIGHT, (1,), part=0.125, systems=asked)
    assert (verl.ratio, verl.tail_cut) == (pytest.approx(1.0), pytest.approx(0.0))
    assert verl.low < 1 < verl.high
    assert verl.reported_tail == 1_817
    assert 1 < streamrl.ratio < 2
    assert streamrl.reported == 1.21


def test_a_system_that_is_not_synchronous_has_no_tail() -> None:
    asked = [system for system in paper_systems(TINY) if system.name in (VERL, APRIL)]
    _, april = study(TINY, (1,), systems=asked)
    assert april.tail is None
    assert april.ratio > 1


def test_every_system_is_simulated_with_and_without_drafts() -> None:
    names = [system.name for system in paper_systems(MOONLIGHT)]
    assert len(set(names)) == len(names)
    for name in (VERL, "StreamRL, true lengths", APRIL, SEER, "oracle"):
        assert sum(other.startswith(f"{name} +") for other in names) >= 1


def test_variations_change_one_parameter_on_fleets_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "CORRELATIONS", (0.8,))
    changes = list(variations(TINY, 1.0))
    assert {change.fleet.instances for change in changes} == {2}
    assert {change.case.requests for change in changes} == {TINY.requests}
    [lost] = [change for change in changes if change.fleet.losses]
    assert lost.fleet.losses[0].at == LOSS_EVERY
    assert [change.fleet.move_seconds for change in changes].count(None) == 1
