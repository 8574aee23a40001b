"""The workers that a weights transaction waits for; no phase passes without a confirmation."""

import pytest

from openseer_core.weights.publish import Deadlines
from openseer_core.weights.transaction import participants
from openseer_core.worker.heartbeat import WeightsReport
from tests.core.weights.reported_fleet import Fleet


def test_without_workers_it_commits_at_once() -> None:
    fleet = Fleet()
    fleet.look()
    assert fleet.told.phase == "commit"
    fleet.look()
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("done", "v1")


@pytest.mark.parametrize("state", ["starting", "draining", "sick", "gone", "silent"])
def test_a_worker_that_leaves_is_named_and_not_waited_for(state: str) -> None:
    fleet = Fleet("a", "b")
    fleet.say("a", "prefetch")
    if state == "gone":
        del fleet.states["b"]
    elif state != "silent":
        fleet.states["b"] = state
    fleet.look(10.1 if state == "silent" else 1, silent=("b",) if state == "silent" else ())
    assert (fleet.told.phase, fleet.told.replaced) == ("load", ("b",))
    assert fleet.told.message == "b left during prefetch"


def test_sleeping_and_new_workers_are_not_waited_for() -> None:
    fleet = Fleet("a", "b")
    fleet.say("b", asleep=True)
    fleet.states["c"], fleet.reports["c"], fleet.inflight["c"] = "idle", WeightsReport(version="initial"), 0
    fleet.say("a", "load")
    fleet.seen["c"] = fleet.now
    fleet.look()
    fleet.look()
    assert (fleet.told.phase, fleet.told.replaced) == ("done", ())
    assert participants(fleet.statuses, fleet.now) == ("a", "c")


@pytest.mark.parametrize("phase", ["prefetch", "load"])
def test_a_phase_that_no_worker_confirms_fails_after_its_retries(phase: str) -> None:
    fleet = Fleet("a", "b", retries=1, deadlines=Deadlines(prefetch=30, load=30))
    if phase == "load":
        fleet.reach_load()
    fleet.look(11, silent=("a", "b"))
    assert (fleet.told.phase, fleet.told.replaced) == (phase, ("a", "b"))
    fleet.look(30, silent=("a", "b"))
    assert (fleet.told.phase, fleet.told.attempt) == (phase, 1)
    fleet.look(30, silent=("a", "b"))
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("failed", "initial")
    assert fleet.told.message.startswith(f"no worker reports: not done with {phase} within")


def test_a_phase_of_keep_without_a_confirmation_does_not_pass() -> None:
    fleet = Fleet("a", mode="keep", prefetch=False)
    fleet.look(11, silent=("a",))
    assert fleet.told.phase == "quiesce"
    fleet.look(9, silent=("a",))
    assert (fleet.told.phase, fleet.told.message) == ("failed", "no worker: not done with quiesce within 20 s")


def test_present_workers_take_part_after_the_last_participant_left() -> None:
    fleet = Fleet("a", "b", deadlines=Deadlines())
    del fleet.states["a"]
    fleet.look(11, silent=("b",))
    fleet.states["c"], fleet.reports["c"], fleet.inflight["c"] = "idle", WeightsReport(version="initial"), 0
    fleet.look()
    assert (fleet.told.phase, fleet.told.participants, fleet.told.replaced) == ("prefetch", ("a", "b", "c"), ("a",))
    assert fleet.told.message == "a, b left during prefetch; b, c joined during prefetch"
    fleet.say("b", "load")
    fleet.look()
    assert fleet.told.phase == "prefetch"
    fleet.say("c", "load")
    fleet.look()
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("commit", "v1")


def test_a_fleet_at_rest_needs_no_confirmation() -> None:
    fleet = Fleet("a")
    fleet.say("a", asleep=True)
    fleet.look()
    assert fleet.told.phase == "prefetch"
    fleet.fleet_spec = fleet.fleet_spec.model_copy(update={"rest": "sleep"})
    fleet.look()
    assert fleet.told.phase == "commit"
