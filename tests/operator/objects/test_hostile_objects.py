"""A malformed object of a tenant affects only that object."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from openseer_core.plan.observation import PodPhase
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.objects.reading import UNREADABLE, JsonObject, read_pod

LABELS = {"openseer.dev/job": "j", "app.kubernetes.io/managed-by": "openseer-operator"}
MANY_DIGITS = "9" * 4301


class Listing:
    """An API server that lists these objects."""

    def __init__(self, **objects: JsonObject) -> None:
        self._objects = objects

    async def pages(self, kind: str, *_: object, **__: object) -> AsyncIterator[list[JsonObject]]:
        yield [self._objects[kind]] if kind in self._objects else []


def listed(name: str = "x", *, annotations: dict[str, str], **more: Any) -> JsonObject:
    labels = {**LABELS, "openseer.dev/role": "driver"}
    meta = {"namespace": "t", "name": name, "uid": "u", "resourceVersion": "5", "labels": labels}
    return {"metadata": {**meta, "annotations": annotations}, "spec": {}, "status": {}, **more}


@pytest.mark.parametrize("text", [MANY_DIGITS, "9" * 10, "-1", "1e9", "²", ""])
async def test_an_invalid_number_in_an_annotation_counts_as_missing(text: str) -> None:
    cache = Cache()
    pod = listed(annotations={"openseer.dev/attempt": text})
    service = listed(annotations={"openseer.dev/replicas": text})
    await Census(cast("Api", Listing(Pod=pod, Service=service)), cache, (), lambda _: None).fill()
    assert [record.pod.attempt for record in cache.pods(("t", "j"))] == [0]


def test_an_unreadable_pod_keeps_its_slot_with_a_problem() -> None:
    record = read_pod(listed(annotations={}, status={"startTime": 5}))
    assert record is not None
    assert (record.pod.problem, record.pod.phase) == (UNREADABLE, PodPhase.PENDING)
    assert (record.pod.name, record.version) == ("x", 5)


def test_an_unreadable_job_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("openseer_operator.objects.reading.parse_job", breaks)
    cache = Cache()
    cache.put_job({"metadata": {"namespace": "t", "name": "j", "uid": "u", "resourceVersion": "1"}, "spec": {}})
    found = cache.job(("t", "j"))
    assert found is not None
    assert (found.job, found.problems) == (None, UNREADABLE)
