"""The metric openseer_job_store_up of a job whose managed Redis has no ready pod."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from openseer_operator.control.apply import Applier
from openseer_operator.control.metrics import Metrics, OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.objects.reading import JsonObject
from openseer_operator.settings import OperatorSettings
from tests.operator.stores import ACCESS

KEY = ("lab", "job")
SETTINGS = OperatorSettings("system", "worker:1", "operator:1", stores=ACCESS)


class AcceptingApi(Api):
    """Accepts every write and stores no object."""

    version = 1

    async def _call(self, verb: str, kind: str, path: str, **call: Any) -> JsonObject:
        if verb == "GET":
            raise NotThereError(f"{verb} {path}: 404", 404)
        self.version += 1
        body: JsonObject = call.get("body") or {}
        return body | {"metadata": {"uid": "u", **body.get("metadata", {}), "resourceVersion": str(self.version)}}


class Bench:
    """A job with a managed Redis, whose pod never becomes ready, and the operator's parts for the job."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.cache = Cache()
        self.state = OperatorState()
        self.poller = StorePoller(api, lambda key: None, access=ACCESS)
        self.state.store = self.poller.health
        census = Census(api, self.cache, KEY[:1], lambda key: None)
        observer = Observer(self.cache, census, self.poller, SETTINGS)
        applier = Applier(api, self.cache, census, self.poller, Events(api, SETTINGS), SETTINGS)
        self.reconciler = Reconciler(api, self.cache, census, self.poller, observer, applier, self.state, SETTINGS)

    async def store_up(self, status: JsonObject | None = None, head: JsonObject | None = None, **spec: Any) -> Any:
        """The metric's value after a reconcile step of a job with this status and spec; None without the metric."""
        meta = {"name": KEY[1], "namespace": KEY[0], "uid": "u-job", "resourceVersion": "1", "generation": 1}
        body = {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, **spec}
        self.cache.put_job({"metadata": meta | (head or {}), "spec": body, "status": status or {}})
        await self.reconciler.reconcile(KEY)
        labels = {"namespace": KEY[0], "job": KEY[1]}
        return Metrics(self.state).registry.get_sample_value("openseer_job_store_up", labels)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench(AcceptingApi(ApiClient(Configuration())))
    yield found
    await found.poller.close()
    await found.api.close()


async def test_a_running_jobs_redis_without_a_ready_pod_is_not_up(bench: Bench) -> None:
    assert await bench.store_up() == 0.0


async def test_a_suspended_jobs_redis_has_no_metric(bench: Bench) -> None:
    assert await bench.store_up(suspend=True) is None


async def test_an_ended_jobs_redis_has_no_metric(bench: Bench) -> None:
    ended = {"type": "Failed", "status": "True", "reason": "InvalidInput", "message": ""}
    status = {"conditions": [ended | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    assert await bench.store_up(status) is None


async def test_a_deleted_jobs_redis_has_no_metric(bench: Bench) -> None:
    assert await bench.store_up(head={"deletionTimestamp": "2026-01-01T00:00:00Z"}) is None
