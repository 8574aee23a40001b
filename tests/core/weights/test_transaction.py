"""A weights transaction of the coordinator: phases, deadlines, failures and the actions that follow from them."""

import pytest

from openseer_core.errors import PublishRefusedError
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Deadlines, Source
from openseer_core.weights.transaction import (
    AbortBatches,
    ChangeVersion,
    DrainWorkers,
    begin,
    cancel,
)
from openseer_core.weights.versions import stale_versions, takes_groups
from openseer_core.wire.weights import to_wire
from tests.core.weights.reported_fleet import Fleet, publish


def test_after_all_confirmations_the_fleet_serves_the_new_version() -> None:
    fleet = Fleet("a", "b")
    assert fleet.told.phase == "prefetch"
    fleet.say("a", "prefetch")
    fleet.look(1)
    assert fleet.told.phase == "prefetch"
    fleet.say("b", "prefetch")
    fleet.unfinished = 3
    fleet.look(1)
    assert fleet.told.phase == "quiesce"
    fleet.unfinished = 0
    fleet.look(5)
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("load", "initial")
    fleet.say("a", "load")
    fleet.look(2)
    fleet.say("b", "load")
    assert fleet.look(1) == ()
    assert (fleet.told.phase, fleet.fleet_spec.version, fleet.fleet_spec.publisher) == ("commit", "v1", 1)
    assert fleet.look(0.1) == (ChangeVersion("initial", "v1"),)
    assert fleet.told.phase == "done"
    assert fleet.fleet_spec.versions == ("initial", "v1")
    assert fleet.told.seconds == pytest.approx({"prefetch": 2, "quiesce": 5, "load": 3, "commit": 0.1})
    assert fleet.look(100) == ()


def test_the_fleet_spec_stays_the_same_without_new_facts() -> None:
    fleet = Fleet("a", "b")
    before = fleet.fleet_spec
    fleet.look(1)
    fleet.say("a", "prefetch")
    fleet.look(1)
    assert fleet.fleet_spec is before


def test_drain_waits_for_old_requests_and_names_their_workers() -> None:
    fleet = Fleet("a", "b", prefetch=False)
    fleet.unfinished, fleet.inflight["b"] = 7, 3
    fleet.look(1)
    wire = to_wire(fleet.fleet_spec, fleet.statuses, fleet.now).transaction
    assert wire is not None
    assert (wire.phase, wire.waiting_for, wire.deadline) == ("quiesce", ["b"], 120.0)
    fleet.look(19)
    assert fleet.told.phase == "failed"
    assert fleet.told.message == "b: not done with quiesce within 20 s: 7 unfinished requests of initial"
    assert (fleet.fleet_spec.version, fleet.told.waiting_for) == ("initial", ("b",))


def test_keep_moves_returned_requests_to_the_new_version_at_commit() -> None:
    fleet = Fleet("a", mode="keep", prefetch=False, max_staleness=0)
    fleet.unfinished = 9
    assert fleet.look(1) == ()
    assert fleet.told.phase == "quiesce"
    fleet.say("a", "quiesce")
    assert fleet.look() == ()
    fleet.say("a", "load")
    assert fleet.look() == ()
    assert fleet.look() == (ChangeVersion("initial", "v1", ("initial",)),)


def test_abort_ends_running_requests_and_those_that_follow() -> None:
    fleet = Fleet("a", mode="abort", prefetch=False)
    fleet.unfinished = 9
    assert fleet.look() == (AbortBatches("initial"),)
    fleet.say("a", "quiesce")
    assert fleet.look() == (AbortBatches("initial"),)
    assert fleet.told.phase == "quiesce"
    fleet.unfinished = 0
    assert fleet.look() == ()
    fleet.say("a", "load")
    fleet.look()
    fleet.unfinished = 1
    assert fleet.look() == (AbortBatches("initial"), ChangeVersion("initial", "v1"))


@pytest.mark.parametrize("phase", ["prefetch", "load"])
def test_a_failed_or_late_phase_is_retried(phase: str) -> None:
    fleet = Fleet("a", "b", retries=2)
    if phase == "load":
        fleet.reach_load()
    fleet.say("a", error="disk")
    fleet.look(1)
    assert (fleet.told.phase, fleet.told.attempt, fleet.told.message) == (phase, 1, "a: disk")
    fleet.say("a", error="disk", attempt=0)
    fleet.look(1)
    assert fleet.told.attempt == 1
    fleet.look(30)
    assert (fleet.told.attempt, fleet.told.phase) == (2, phase)
    assert fleet.told.message.startswith("a: disk; b: not done with " + phase)
    fleet.say("a", phase)
    fleet.say("b", phase)
    fleet.look(1)
    assert fleet.told.phase == ("load" if phase == "prefetch" else "commit")


def test_after_the_last_try_abort_returns_to_the_previous_version() -> None:
    fleet = Fleet("a", "b")
    fleet.reach_load()
    fleet.say("a", "load")
    fleet.say("b", "quiesce", error="no such tensor")
    fleet.look(1)
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("rollback", "initial")
    fleet.say("b", "rollback")
    fleet.look(1)
    assert fleet.told.phase == "rollback"
    fleet.say("a", "rollback", version="v1")
    fleet.look(1)
    assert fleet.told.phase == "rollback"
    fleet.say("a", "rollback")
    fleet.look(1)
    assert (fleet.told.phase, fleet.fleet_spec.version, fleet.told.message) == (
        "failed",
        "initial",
        "b: no such tensor",
    )
    assert fleet.told.waiting_for == ("b",)


def test_a_late_rollback_replaces_the_workers_it_waits_for() -> None:
    fleet = Fleet("a", "b")
    fleet.reach_load()
    fleet.say("b", error="broken")
    fleet.look()
    fleet.say("b", "rollback")
    assert fleet.look(30) == (DrainWorkers(("a",)),)
    assert (fleet.told.phase, fleet.told.replaced) == ("failed", ("a",))
    assert "a: not done with rollback within 30 s" in fleet.told.message


def test_replace_drains_late_workers_and_continues_without_them() -> None:
    fleet = Fleet("a", "b", on_failure="replace")
    fleet.reach_load()
    fleet.say("a", "load")
    assert fleet.look(30) == (DrainWorkers(("b",)),)
    assert (fleet.told.phase, fleet.told.replaced) == ("load", ("b",))
    fleet.look()
    fleet.look()
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("done", "v1")
    assert fleet.told.message == "b: not done with load within 30 s"


def test_replace_rolls_back_when_every_worker_hangs() -> None:
    fleet = Fleet("a", "b", on_failure="replace")
    fleet.reach_load()
    assert fleet.look(30) == ()
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("rollback", "initial")


def test_replace_never_commits_weights_that_every_worker_refused() -> None:
    fleet = Fleet("a", "b", on_failure="replace")
    fleet.reach_load()
    fleet.say("a", error="canary differs by 3", mismatch=True)
    assert fleet.look() == (DrainWorkers(("a",)),)
    fleet.states["a"] = "draining"
    fleet.say("b", error="canary differs by 3", mismatch=True)
    assert fleet.look() == ()
    assert fleet.told.phase == "rollback"
    fleet.say("b", "rollback")
    fleet.look()
    assert (fleet.told.phase, fleet.fleet_spec.version) == ("failed", "initial")
    assert fleet.told.message == "b: canary differs by 3"


def test_a_repeated_publish_changes_nothing_and_others_are_refused() -> None:
    fleet = Fleet("a")
    again = publish(deadlines=Deadlines())
    assert begin(fleet.fleet_spec, again, (), 0.0) is fleet.fleet_spec
    with pytest.raises(PublishRefusedError, match=r"weights v1 are being published \(transaction 1, in prefetch\)"):
        begin(fleet.fleet_spec, publish(version="v2"), (), 0.0)
    with pytest.raises(PublishRefusedError, match="being published"):
        begin(fleet.fleet_spec, publish(source=Source(path="/other")), (), 0.0)
    fleet.say("a", "load")
    fleet.look()
    fleet.look()
    assert begin(fleet.fleet_spec, again, (), 0.0) is fleet.fleet_spec
    for name in ("v1", "initial"):
        with pytest.raises(PublishRefusedError, match="give new weights another name"):
            begin(fleet.fleet_spec, publish(version=name, source=Source(path="/other")), (), 0.0)
    second = begin(fleet.fleet_spec, publish(version="v2"), (), 0.0)
    assert second.transaction is not None
    assert (second.transaction.id, second.transaction.previous) == (2, "v1")
    assert second.transaction.previous_source == Source(path="/v1")


def test_a_failed_version_may_be_published_again() -> None:
    fleet = Fleet("a")
    fleet.fleet_spec = cancel(fleet.fleet_spec, fleet.now)
    assert (fleet.told.phase, fleet.told.message) == ("failed", "aborted by request")
    again = begin(fleet.fleet_spec, publish(), ("a",), fleet.now)
    assert again.transaction is not None
    assert again.transaction.id == 2


def test_a_cancelled_load_is_rolled_back_and_a_commit_stands() -> None:
    fleet = Fleet("a")
    fleet.reach_load()
    fleet.say("a", "load")
    assert cancel(fleet.fleet_spec, fleet.now).transaction.phase == "rollback"  # pyright: ignore
    fleet.look()
    assert cancel(fleet.fleet_spec, fleet.now) is fleet.fleet_spec
    assert cancel(FleetSpec(), 0.0).transaction is None


def test_groups_of_a_version_are_taken_until_the_fleet_leaves_it() -> None:
    fleet = Fleet("a")
    assert takes_groups(fleet.fleet_spec, "initial")
    fleet.reach_load()
    assert not takes_groups(fleet.fleet_spec, "initial")
    assert takes_groups(fleet.fleet_spec, "v1")
    kept = Fleet("a", mode="keep")
    kept.reach_load()
    assert takes_groups(kept.fleet_spec, "initial")


def test_staleness_counts_published_versions() -> None:
    versions = ("initial", "v1", "v2", "v3")
    assert stale_versions(versions, "v3", 1) == ("initial", "v1")
    assert stale_versions(versions, "v3", 3) == ()
    assert stale_versions(versions, "v3", None) == ()


def test_the_wire_form_states_each_workers_progress() -> None:
    fleet = Fleet("a", "b")
    fleet.say("a", "prefetch", seconds={"prefetch": 1.5})
    fleet.say("b", error="no such folder")
    transaction = to_wire(fleet.fleet_spec, fleet.statuses, fleet.now).transaction
    assert transaction is not None
    assert transaction.waiting_for == ["b"]
    assert [(worker.worker, worker.phase, worker.error, worker.seconds) for worker in transaction.workers] == [
        ("a", "prefetch", None, {"prefetch": 1.5}),
        ("b", "", "no such folder", {}),
    ]
