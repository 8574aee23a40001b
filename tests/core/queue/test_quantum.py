"""The responses that continue and those that leave at the end of a quantum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.queue.messages import FleetLoad
from openseer_core.queue.quantum import Decision, QuantumState, Room, decide

QUIET = FleetLoad(waiting=0, inflight=4, workers=2, mine=2)


def running_state(
    key: str, score: float = 0.0, *, due: bool = True, generated: int = 100, blocks: int = 1, grow: int = 1
) -> QuantumState:
    return QuantumState(key, score, due, generated, blocks + grow if due else blocks)


def decided(
    running: list[QuantumState],
    fleet_load: FleetLoad | None,
    *,
    slots: int = 2,
    blocks: int = 100,
    slack: int = 1,
    divided: bool = True,
    pace: float = 0.0,
) -> Decision:
    room = Room(slots, blocks)
    return decide(running, room, fleet_load, slack=slack, hysteresis=10.0, divided=divided, pace=pace)


def test_a_due_response_continues_in_place_when_nothing_waits() -> None:
    assert decided([running_state("a"), running_state("b", due=False)], QUIET) == Decision(
        frozenset({"a"}), frozenset()
    )


def test_a_full_worker_gives_back_a_due_response_for_a_better_one() -> None:
    fleet_load = FleetLoad(waiting=1, best_waiting=-90.0, mine=2, inflight=4, workers=2)
    decision = decided([running_state("a", 0.0), running_state("b", -100.0)], fleet_load)
    assert decision == Decision(frozenset({"b"}), frozenset({"a"}))


def test_a_barely_better_request_moves_nothing() -> None:
    fleet_load = FleetLoad(waiting=1, best_waiting=-5.0, mine=2, inflight=4, workers=2)
    assert decided([running_state("a"), running_state("b")], fleet_load).leave == frozenset()


def test_a_longer_response_leaves_only_for_a_better_score() -> None:
    fleet_load = FleetLoad(waiting=1, best_waiting=-200.0, mine=2, inflight=4, workers=2)
    short, long = running_state("a", generated=300), running_state("a", generated=500)
    assert decided([short, running_state("b", -400.0)], fleet_load).leave == frozenset({"a"})
    assert decided([long, running_state("b", -400.0)], fleet_load).leave == frozenset()


def test_a_worker_with_a_free_slot_gives_nothing_back() -> None:
    fleet_load = FleetLoad(waiting=5, best_waiting=-1e9, mine=2, inflight=4, workers=2)
    assert decided([running_state("a"), running_state("b")], fleet_load, slots=3).leave == frozenset()


def test_a_response_in_mid_quantum_stays_though_a_better_one_waits() -> None:
    fleet_load = FleetLoad(waiting=5, best_waiting=-1e9, mine=2, inflight=4, workers=2)
    assert decided([running_state("a", due=False), running_state("b", due=False)], fleet_load).leave == frozenset()


def test_an_overloaded_worker_gives_back_the_cheapest_to_move() -> None:
    running = [running_state(str(number), generated=1000 - number) for number in range(6)]
    fleet_load = FleetLoad(waiting=0, mine=6, inflight=6, workers=2)
    assert decided(running, fleet_load, slots=8).leave == frozenset({"4", "5"})


def test_with_little_work_a_worker_keeps_twice_its_fair_share() -> None:
    running = [running_state(str(number), generated=number) for number in range(33)]
    fleet_load = FleetLoad(waiting=0, mine=33, inflight=33, workers=16)
    assert len(decided(running, fleet_load, slots=512, slack=64).leave) == 33 - 2 * fleet_load.fair_share


def test_a_group_static_policy_gives_back_only_for_lack_of_blocks() -> None:
    fleet_load = FleetLoad(waiting=5, best_waiting=-1e9, mine=2, inflight=2, workers=2)
    assert decided([running_state("a"), running_state("b")], fleet_load, divided=False).leave == frozenset()
    assert decided(
        [running_state("a", 1.0), running_state("b")], fleet_load, blocks=3, divided=False
    ).leave == frozenset({"a"})


def test_without_a_fleet_load_only_lack_of_blocks_moves_work() -> None:
    assert decided([running_state("a"), running_state("b")], None).leave == frozenset()
    assert decided([running_state("a", 1.0), running_state("b")], None, blocks=3).leave == frozenset({"a"})


def test_at_most_a_share_of_the_slots_is_given_back_at_once() -> None:
    running = [running_state(str(number)) for number in range(64)]
    fleet_load = FleetLoad(waiting=1000, best_waiting=-1e9, mine=64, inflight=64, workers=1)
    assert len(decided(running, fleet_load, slots=64, blocks=10_000).leave) == 8


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans(), st.integers(1, 9), st.integers(0, 9)), max_size=12),
    st.integers(1, 60),
    st.integers(0, 20),
)
def test_staying_responses_fit_the_blocks_and_at_least_one_stays(
    rows: list[tuple[float, bool, int, int]], blocks: int, waiting: int
) -> None:
    running = [running_state(str(n), score, due=due, blocks=b, grow=g) for n, (score, due, b, g) in enumerate(rows)]
    fleet_load = FleetLoad(waiting=waiting, best_waiting=-1e9, mine=len(running), inflight=20, workers=2)
    decision = decided(running, fleet_load, slots=4, blocks=blocks)
    staying = [state for state in running if state.key not in decision.leave]
    assert sum(state.blocks for state in staying) <= blocks or len(staying) <= 1
    assert decision.go_on == {state.key for state in staying if state.due}
    assert not decision.go_on & decision.leave


@pytest.mark.parametrize(("free_pace", "waiting", "left"), [(12.6, 0, "a"), (12.4, 0, ""), (12.6, 1, "")])
def test_a_due_response_goes_to_a_free_worker_that_is_faster(free_pace: float, waiting: int, left: str) -> None:
    running = [running_state("b", -1), running_state("a", -9), running_state("c", -20, due=False)]
    fleet_load = FleetLoad(waiting=waiting, mine=3, inflight=6, workers=2, free_pace=free_pace)
    assert decided(running, fleet_load, slots=9, pace=10.0).leave == set(left)
    assert not decided(running, fleet_load, slots=9, pace=10.0, divided=False).leave


def test_without_a_known_pace_no_response_goes_to_a_faster_worker() -> None:
    fleet_load = FleetLoad(waiting=0, mine=1, inflight=1, workers=2, free_pace=99.0)
    assert not decided([running_state("a")], fleet_load).leave


@pytest.mark.parametrize(("free_pace", "left"), [(8.1, 3), (7.9, 0), (0.0, 3)])
def test_an_overloaded_worker_gives_nothing_to_slower_ones(free_pace: float, left: int) -> None:
    running = [running_state(str(number)) for number in range(8)]
    fleet_load = FleetLoad(waiting=0, mine=8, inflight=8, workers=2, free_pace=free_pace)
    assert len(decided(running, fleet_load, slots=9, pace=10.0).leave) == left
