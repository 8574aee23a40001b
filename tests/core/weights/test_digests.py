"""A version is identified by its content: all workers must find the same digest, also those that load it later."""

import pytest
from pydantic import ValidationError

from openseer_core.weights.loaded import has_loaded
from openseer_core.weights.publish import Source
from openseer_core.weights.transaction import begin
from openseer_core.weights.worker_step import targets
from openseer_core.wire.weights import to_wire
from tests.core.weights.reported_fleet import Fleet, publish

ONE, TWO = "1" * 64, "2" * 64


@pytest.mark.parametrize("phase", ["prefetch", "load"])
@pytest.mark.parametrize("on_failure", ["abort", "replace"])
def test_different_weights_end_the_transaction_and_name_the_workers(phase: str, on_failure: str) -> None:
    fleet = Fleet("a", "b", "c", prefetch=phase == "prefetch", on_failure=on_failure)
    if phase == "load":
        fleet.reach_load()
    fleet.say("a", phase, digest=ONE)
    fleet.say("b", phase, digest=TWO)
    fleet.look()
    assert fleet.told.phase == phase
    fleet.say("c", phase, digest=ONE)
    fleet.look()
    assert fleet.told.phase == ("failed" if phase == "prefetch" else "rollback")
    assert fleet.told.message == f"the workers have found different weights: a, c: {ONE}; b: {TWO}"


def test_the_digest_that_all_workers_found_is_required_of_later_ones() -> None:
    fleet = Fleet("a", "b")
    for name in ("a", "b"):
        fleet.say(name, "prefetch", digest=ONE)
    fleet.look()
    known = Source(path="/v1", digest=ONE)
    assert [target.source for target in targets(fleet.fleet_spec)] == [None, known]
    for name in ("a", "b"):
        fleet.say(name, "load", digest=ONE)
    fleet.look()
    fleet.look()
    assert (fleet.told.phase, fleet.fleet_spec.source) == ("done", known)
    wire = to_wire(fleet.fleet_spec, fleet.statuses, fleet.now).transaction
    assert wire is not None
    assert wire.digest == ONE


def test_without_every_workers_digest_none_is_required() -> None:
    fleet = Fleet("a", "b")
    fleet.say("a", "load", digest=ONE)
    fleet.say("b", "load")
    fleet.look()
    assert (fleet.told.phase, fleet.fleet_spec.source) == ("commit", Source(path="/v1"))


@pytest.mark.parametrize("active", [False, True])
def test_the_first_load_sets_the_digest_of_an_unconfirmed_version(active: bool) -> None:
    fleet = Fleet()
    while fleet.told.active:
        fleet.look()
    assert fleet.fleet_spec.awaits_digest
    spec = fleet.fleet_spec
    fleet.states, fleet.inflight = {"a": "idle", "b": "idle"}, {"a": 0, "b": 0}
    fleet.say("a", version="v1", publisher=7, loaded=TWO)
    fleet.say("b", version="initial")
    if active:
        fleet.fleet_spec = begin(spec, publish(version="v2"), ("a", "b"), fleet.now)
    fleet.look()
    assert fleet.fleet_spec.awaits_digest
    for name, loaded in (("a", ONE), ("b", TWO)):
        fleet.say(name, version="v1", publisher=spec.publisher, loaded=loaded)
    fleet.look()
    assert fleet.fleet_spec.source == Source(path="/v1", digest=ONE)
    assert [has_loaded(fleet.fleet_spec, fleet.reports[name]) for name in ("a", "b")] == [True, False]


def test_a_publishers_digest_is_required_of_every_worker() -> None:
    fleet = Fleet("a", source=Source(path="/v1", digest=TWO))
    assert targets(fleet.fleet_spec)[1].source == Source(path="/v1", digest=TWO)
    with pytest.raises(ValidationError, match="digest"):
        Source(path="/v1", digest="1")
