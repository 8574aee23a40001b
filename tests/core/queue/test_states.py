"""The life of a request is what its table says."""

import pytest

from openseer_core.queue.states import FINAL_STATES, TRANSITIONS, Event, State, after


def test_a_final_state_but_done_is_never_left_and_every_other_one_can_be() -> None:
    left = {state for state, _ in TRANSITIONS}
    assert left == set(State) - FINAL_STATES | {State.DONE}


def test_every_state_is_reached_from_queued() -> None:
    reached = {State.QUEUED}
    for _ in State:
        reached |= {target for (source, _), target in TRANSITIONS.items() if source in reached}
    assert reached == set(State)


def test_every_event_can_happen() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_what_cannot_happen_is_a_key_error() -> None:
    assert after(State.LEASED, Event.REAP) is State.QUEUED
    with pytest.raises(KeyError):
        after(State.DONE, Event.CLAIM)
