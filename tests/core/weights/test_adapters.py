"""Versions of adapters: replaced one at a time, and removed with their base weights."""

from typing import Any

import pytest

from openseer_core.errors import PublishRefusedError
from openseer_core.manifest.generation import Lora
from openseer_core.weights.fleet_spec import Adapter, FleetSpec
from openseer_core.weights.publish import AdapterSpec, Source
from openseer_core.weights.transaction import begin
from openseer_core.weights.versions import admits, leaving, stale_by, successor, takes_groups
from tests.core.weights.reported_fleet import Fleet, publish

SOURCE = Source(path="/a", digest="a" * 64)


def adapter(name: str, *versions: str) -> Adapter:
    return Adapter(name=name, version=versions[-1], base="initial", source=SOURCE, publisher=1, versions=versions)


SERVED = FleetSpec(adapters=(adapter("math", "m1", "m2"), adapter("code", "c1")), adapter_versions=("m1", "m2", "c1"))


def publishing(phase: str, **more: Any) -> FleetSpec:
    """The fleet spec of those adapters in a phase of a publish."""
    what = publish(**more)
    told = {"publish": what, "phase": phase, "previous": SERVED.replaced_by(what)}
    return SERVED.changed(transaction=Fleet("a").told.model_copy(update=told))


def test_weights_replace_all_adapters_and_an_adapter_only_itself() -> None:
    weights = publishing("quiesce")
    assert weights.transaction is not None
    assert leaving(weights, weights.transaction) == ("initial", "m2", "c1")
    one = publishing("quiesce", version="m3", source=SOURCE, adapter=AdapterSpec(name="math"))
    assert one.transaction is not None
    assert leaving(one, one.transaction) == ("m2",)
    new = publishing("quiesce", version="x1", source=SOURCE, adapter=AdapterSpec(name="new"))
    assert new.transaction is not None
    assert leaving(new, new.transaction) == ()


def test_draining_versions_take_no_groups_and_the_others_do() -> None:
    draining = publishing("load", version="m3", source=SOURCE, adapter=AdapterSpec(name="math"))
    assert [takes_groups(draining, version) for version in ("initial", "m2", "c1")] == [True, False, True]
    assert [admits(draining, version) for version in ("initial", "m2", "c1")] == [True, False, True]
    assert not any(takes_groups(publishing("load"), version) for version in ("initial", "m2", "c1"))
    assert not any(admits(SERVED.changed(held=True), version) for version in ("initial", "m2", "c1"))


def test_unfinished_work_continues_only_with_its_own_adapter() -> None:
    assert [successor(SERVED, version) for version in ("initial", "m1", "c1", "x")] == ["initial", "m2", "c1", None]
    assert successor(SERVED.without("math"), "m1") is None


def test_staleness_is_counted_among_the_versions_of_one_adapter() -> None:
    done = publishing(
        "done", version="m2", source=SOURCE, adapter=AdapterSpec(name="math"), mode="keep", max_staleness=0
    )
    assert stale_by(done, "m2") == ("m1",)
    assert stale_by(done, "c1") == ()


def test_an_adapter_that_no_worker_can_read_needs_its_digest() -> None:
    lora, spec = Lora(), publish(adapter=AdapterSpec(name="a"))
    with pytest.raises(PublishRefusedError, match=r"source\.digest: missing"):
        begin(FleetSpec(), spec, (), 0.0, lora)
    with pytest.raises(PublishRefusedError, match=r"set spec\.model\.lora"):
        begin(FleetSpec(), spec, ("a",), 0.0)
    begun = begin(FleetSpec(), publish(adapter=AdapterSpec(name="a"), source=SOURCE), (), 0.0, lora)
    assert begun.active_transaction is not None


def test_an_adapter_that_was_removed_is_not_published_by_its_old_version() -> None:
    what = publish(version="m2", source=SOURCE, adapter=AdapterSpec(name="math"))
    served = publishing("done", **what.model_dump(include={"version"}), source=SOURCE, adapter=what.adapter)
    assert begin(served, what, ("a",), 0.0, Lora()) is served
    with pytest.raises(PublishRefusedError, match=r"adapter m2 was removed; publish it under a version of its own"):
        begin(served.without("math"), what, ("a",), 0.0, Lora())
