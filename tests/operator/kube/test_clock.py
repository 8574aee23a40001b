"""Times are compared by the API server's clock, not the operator's own."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from openseer_operator.control.apply import Applier
from openseer_operator.control.metrics import OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.clock import ServerClock
from openseer_operator.kube.events import Events
from openseer_operator.settings import OperatorSettings
from tests.operator.stores import ACCESS

SETTINGS = OperatorSettings("default", "worker:1", "operator:1", identity="test", stores=ACCESS)
BEHIND = timedelta(minutes=10)
"""How far the server's clock is behind ours."""


def told(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def moved(clock: ServerClock, seconds: float, within: float = 0.0) -> bool:
    """Whether the clock was moved by so many seconds from the local one."""
    before, found, after = time.time(), clock.now(), time.time()
    return before + seconds - within <= found <= after + seconds + within


def test_a_correct_clock_is_not_moved() -> None:
    clock = ServerClock()
    before = clock.now()
    for late in (0.0, 0.4, 0.9):
        clock.observe(told(int(before)), int(before) + late, int(before) + late + 0.01)
    assert moved(clock, 0.0)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_is_moved_by_its_difference(hours: int) -> None:
    clock = ServerClock()
    ours = 1_790_000_000.5
    theirs = ours + 3600 * hours
    clock.observe(told(theirs), ours, ours + 0.2)
    assert moved(clock, 3600 * hours, within=2.0)


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_an_answer_without_a_time_changes_nothing(date: str | None) -> None:
    clock = ServerClock()
    clock.observe(date, 0.0, 1.0)
    assert moved(clock, 0.0)


class PlayedServer:
    """A server that accepts every write, stores no object and has a clock that is behind. `asked`: the calls."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._version = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        self._version += 1
        body: dict[str, Any] = await request.json() if request.can_read_body else {}
        body.setdefault("metadata", {}).update(resourceVersion=str(self._version))
        body["metadata"].setdefault("uid", "u")
        now = format_datetime(datetime.now(UTC) - BEHIND, usegmt=True)
        return web.json_response(body, status=404 if request.method == "GET" else 200, headers={"Date": now})


@pytest.fixture
async def server() -> AsyncIterator[PlayedServer]:
    played = PlayedServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", played.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    played.url = site.name
    yield played
    await runner.cleanup()


async def test_a_leaving_pods_deadline_is_compared_by_the_servers_clock(server: PlayedServer) -> None:
    configuration = Configuration()
    configuration.host = server.url
    api = Api(ApiClient(configuration))
    cache = Cache()
    stores = StorePoller(api, lambda key: None)
    census = Census(api, cache, ("lab",), lambda key: None)
    applier = Applier(api, cache, census, stores, Events(api, SETTINGS), SETTINGS)
    observer = Observer(cache, census, stores, SETTINGS)
    reconciler = Reconciler(api, cache, census, stores, observer, applier, OperatorState(), SETTINGS)
    with pytest.raises(NotThereError):
        await api.get("Lease", "default", "operator")  # a call that a leader makes before its first job
    leaves_in = timedelta(seconds=60)
    gone_by = datetime.now(UTC) - BEHIND + leaves_in
    cache.put_job(job())
    cache.put_pod(leaving_pod(gone_by.strftime("%Y-%m-%dT%H:%M:%SZ")))
    await reconciler.reconcile(("lab", "job"))
    assert "DELETE /api/v1/namespaces/lab/pods/job-worker-0" not in server.asked
    started = (cache.job(("lab", "job")) or pytest.fail("the job is known")).status["startTime"]
    assert datetime.fromisoformat(started) < datetime.now(UTC) - BEHIND + timedelta(seconds=30)
    await stores.close()
    await api.close()


def job() -> dict[str, Any]:
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "job", "namespace": "lab", "uid": "u-job", "resourceVersion": "0", "generation": 1},
        "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, "workers": {"replicas": 1}},
    }


def leaving_pod(gone_by: str) -> dict[str, Any]:
    owner = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "name": "job", "uid": "u-job"}
    labels = {"openseer.dev/job": "job", "openseer.dev/role": "worker", "openseer.dev/worker": "0"}
    head = {"name": "job-worker-0", "namespace": "lab", "uid": "u-pod", "resourceVersion": "1", "labels": labels}
    return {
        "metadata": head | {"ownerReferences": [owner | {"controller": True}], "deletionTimestamp": gone_by},
        "spec": {"containers": [{"name": "worker"}]},
        "status": {"phase": "Running"},
    }
