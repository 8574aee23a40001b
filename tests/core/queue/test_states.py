"""The states of a request follow the table of transitions."""

import pytest

from openseer_core.queue.states import FINAL_STATES, TRANSITIONS, Event, State, after


def test_only_done_among_the_final_states_can_be_left() -> None:
    left = {state for state, _ in TRANSITIONS}
    assert left == set(State) - FINAL_STATES | {State.DONE}


def test_every_state_is_reached_from_queued() -> None:
    reached = {State.QUEUED}
    for _ in State:
        reached |= {target for (source, _), target in TRANSITIONS.items() if source in reached}
    assert reached == set(State)


def test_every_event_can_happen() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_an_impossible_transition_is_a_key_error() -> None:
    assert after(State.LEASED, Event.REAP) is State.QUEUED
    with pytest.raises(KeyError):
        after(State.DONE, Event.CLAIM)
