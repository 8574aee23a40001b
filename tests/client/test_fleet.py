"""Weights and GPUs: the client follows a transaction to its end and names workers that did not follow."""

from collections import deque
from typing import Any

import pytest

from openseer_client import AdapterSpec, FleetError, Publish, Source, Transaction, WeightsError
from tests.client.remote import Remote, lost_answer

WHAT = Publish(version="v2", source=Source(path="/weights/v2"))


def transaction(phase: str, *waiting: str, number: int = 1, **more: Any) -> dict[str, Any]:
    known = {"id": number, "version": "v2", "previous": "v1", "mode": "drain", "phase": phase, "attempt": 0}
    return known | {"started_at": 0.0, "waiting_for": list(waiting)} | more


def weights(revision: int, phase: str, *waiting: str, **more: Any) -> dict[str, Any]:
    on = transaction(phase, *waiting, **more)
    return {"revision": revision, "version": "v1", "versions": ["v1"], "transaction": on}


def test_a_publication_is_followed_to_its_end() -> None:
    remote = Remote()
    remote.faults.append(lost_answer)
    remote.answers = {
        "POST weights": deque([transaction("prefetch", "w0", "w1")]),
        "GET weights": deque([weights(1, "prefetch", "w1"), weights(2, "load", "w0"), weights(3, "done")]),
    }
    reported: list[Transaction] = []
    assert remote.client().publish(WHAT, progress=reported.append).phase == "done"
    assert [(transaction.phase, transaction.waiting_for) for transaction in reported] == [
        ("prefetch", ["w0", "w1"]),
        ("prefetch", ["w1"]),
        ("load", ["w0"]),
        ("done", []),
    ]
    assert [request.url.params.get("revision") for request in remote.seen[2:]] == [None, "1", "2"]


def test_a_failed_publication_names_missing_workers_and_served_weights() -> None:
    remote = Remote()
    lost = [{"worker": "w1", "version": "v1", "phase": "load", "attempt": 1, "error": "canary differs by 0.4"}]
    remote.answers = {
        "POST weights": deque([transaction("prefetch")]),
        "GET weights": deque([weights(5, "failed", "w1", workers=lost, message="went back to v1")]),
    }
    with pytest.raises(WeightsError, match="not confirmed by: w1") as caught:
        remote.client().publish(WHAT)
    assert "canary differs by 0.4" in str(caught.value)
    assert "serves v1" in str(caught.value)
    assert caught.value.transaction.waiting_for == ["w1"]


@pytest.mark.parametrize("present", [True, False])
def test_the_served_versions_decide_the_end_of_a_superseded_transaction(present: bool) -> None:
    remote = Remote()
    later = weights(9, "load", number=2) | {"versions": ["v1", "v2"] if present else ["v1"]}
    remote.answers = {"POST weights": deque([transaction("load")]), "GET weights": deque([later])}
    if present:
        assert remote.client().publish(WHAT).phase == "done"
    else:
        with pytest.raises(WeightsError, match="another transaction"):
            remote.client().publish(WHAT)


@pytest.mark.parametrize("present", [True, False])
def test_served_versions_decide_the_end_of_a_superseded_adapter_publish(present: bool) -> None:
    remote = Remote()
    served = {"name": "tutor", "version": "t2", "base": "v1", "versions": ["t1", "t2"] if present else ["t1"]}
    later = weights(9, "load", number=2) | {"adapters": [served]}
    remote.answers = {
        "POST weights": deque([transaction("load", version="t2", adapter="tutor")]),
        "GET weights": deque([later]),
    }
    publish = Publish(version="t2", adapter=AdapterSpec(name="tutor", base="v1"), source=Source(path="/adapters/t2"))
    if present:
        assert remote.client().publish(publish).phase == "done"
    else:
        with pytest.raises(WeightsError, match="another transaction"):
            remote.client().publish(publish)


def test_publishing_without_waiting_returns_at_once() -> None:
    remote = Remote()
    remote.answers = {"POST weights": deque([transaction("prefetch")])}
    assert remote.client().publish(WHAT, wait=False).phase == "prefetch"
    assert len(remote.seen) == 1


def fleet(state: str, *waiting: str) -> dict[str, Any]:
    return {"state": state, "since": 0.0, "waiting_for": list(waiting)}


def test_release_and_acquire_return_when_every_worker_has_followed() -> None:
    remote = Remote()
    remote.answers = {
        "POST release": deque([fleet("releasing", "w0")]),
        "POST acquire": deque([fleet("acquiring", "w0")]),
        "GET fleet": deque([fleet("releasing", "w0"), fleet("released"), fleet("acquiring"), fleet("awake")]),
    }
    client = remote.client()
    assert client.release().state == "released"
    assert client.acquire().state == "awake"


def test_a_worker_that_does_not_release_its_gpus_is_named() -> None:
    remote = Remote()
    remote.answers = {
        "POST release": deque([fleet("releasing", "w3", "w0")]),
        "GET fleet": deque([fleet("releasing", "w3")]),
    }
    with pytest.raises(FleetError, match="waits for: w3"):
        remote.client().release(patience=0.05)
