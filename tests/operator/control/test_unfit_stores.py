"""Stores that the operator may not use or cannot trust: the status has a remedy, and no other job is affected."""

import asyncio
import logging
import signal
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from openseer_core.ids import WorkerId
from openseer_core.manifest.base import MOST_WORKERS
from openseer_core.plan.observation import StoreProblem
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import Heartbeat, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics
from openseer_operator.control import store_poller
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.control.store_views import reports_of
from openseer_operator.kube.api import Api, KubeApiError
from openseer_process.store_hosts import Answer, StoreHosts
from tests.operator.control.test_store_poller import KEY, listener, reading, record, until
from tests.operator.job_store import JobStore
from tests.operator.stores import ACCESS
from tests.ports import reserved_port

pytestmark = [pytest.mark.redis]


def problem(stores: StorePoller) -> StoreProblem:
    found = stores.problem(KEY)
    assert found is not None
    return found


async def test_an_unlisted_host_is_not_dialled_and_is_reported() -> None:
    async with listener(b"") as (url, times):
        access = replace(ACCESS, hosts=StoreHosts())
        async with reading(record(url), access=access) as (stores, announced):
            await until(lambda: announced[KEY] == 1)
            assert problem(stores).reason == "StoreHostForbidden"
            assert "found 127.0.0.1, allowed: services of namespace default" in problem(stores).message
            assert not stores.settling(KEY)
        assert times == []


async def test_a_name_that_resolves_elsewhere_later_is_not_dialled() -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def rebind(_host: str, _port: int) -> Answer:
        return "", answers.pop(0) if len(answers) > 1 else answers[0]

    async with listener(b"-LOADING it loads\r\n") as (url, times):
        hosts = StoreHosts(("cache.example", "127.0.0.0/8"), resolve=rebind)
        named = record(url.replace("127.0.0.1", "cache.example"))
        async with reading(named, access=replace(ACCESS, hosts=hosts)) as (stores, _):
            await until(lambda: stores.problem(KEY) is not None)
            assert "cache.example, which leads to 169.254.169.254" in problem(stores).message
        assert len(times) == 1


async def test_an_unreadable_secret_is_reported_with_the_remedy_and_rarely_read() -> None:
    asked: list[str] = []

    class Forbidding(Api):
        async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
            asked.append(f"{kind} {namespace}/{name}")
            raise KubeApiError("GET: 403 forbidden", 403)

    client = ApiClient(Configuration())
    async with reading(record("", secretRef={"name": "mine", "key": "url"}), api=Forbidding(client)) as (stores, said):
        await until(lambda: said[KEY] == 1)
        assert problem(stores).reason == "StoreSecretForbidden"
        assert "kubectl create role openseer-mine -n default" in problem(stores).message
        await asyncio.sleep(0)
        assert asked == ["Secret default/mine"]
    await client.close()


async def test_an_unusable_url_is_reported_with_the_reason() -> None:
    async with reading(record("redis://127.0.0.1:1/0?ssl_ca_certs=/etc/passwd")) as (stores, announced):
        await until(lambda: announced[KEY] == 1)
        assert problem(stores).reason == "StoreInvalid"
        assert "ssl_ca_certs" in problem(stores).message
        assert not stores.settling(KEY)


@pytest.mark.parametrize("found", ["9" * 400, str(-(2**63)), "1" + "0" * 16])
async def test_an_impossible_count_in_a_store_is_ignored(server: JobStore, found: str) -> None:
    await server.submit("a")
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        tokens, view = stores.tokens(KEY), stores.view(KEY)
        await server.command("HSET", "{openseer:default/job}:batch:0", "tokens", found)
        await asyncio.sleep(5 * stores.interval)
        assert stores.tokens(KEY) == tokens
        assert stores.view(KEY) in (view, None)


class OwnSecret(Api):
    """An API server with the Secret of a user's store, whose URL a test may change."""

    def __init__(self, client: ApiClient, url: str) -> None:
        super().__init__(client)
        self.url = url

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        return {"data": {"url": b64encode(self.url.encode()).decode()}}


@pytest.mark.slow
async def test_a_changed_password_or_url_of_a_store_is_noticed(server: JobStore, tmp_path: Path) -> None:
    await server.command("ACL", "SETUSER", "ann", "on", ">one", "allkeys", "+@all")
    async with ApiClient(Configuration()) as client, JobStore(tmp_path / "other") as other:
        secret = OwnSecret(client, server.url.replace("unix://", "unix://ann:one@"))
        async with reading(record("", secretRef={"name": "mine", "key": "url"}), api=secret) as (stores, _):
            await until(lambda: stores.view(KEY) is not None)
            await server.submit("a")
            secret.url = secret.url.replace("one", "two")
            await server.command("ACL", "SETUSER", "ann", "resetpass", ">two")
            await server.command("CLIENT", "KILL", "USER", "ann")
            await until(lambda: requests(stores) == 2)
            await other.submit("a")
            await other.submit("b")
            secret.url = other.url
            server.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: requests(stores) == 4)
            finally:
                server.send_signal(signal.SIGCONT)


def requests(stores: StorePoller) -> int | None:
    view = stores.view(KEY)
    return view.progress.requests if view is not None else None


@pytest.mark.slow
async def test_reports_of_the_largest_fleet_are_read_and_larger_ones_refused(
    server: JobStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_poller, "READ_SECONDS", 60.0)
    caplog.set_level(logging.INFO)
    says: dict[str, float | int | str] = {
        f"gpu{gpu}_measure_{name}": 0.123456789 for gpu in range(8) for name in range(6)
    }
    names = [WorkerId(f"worker-{number}", "boot") for number in range(MOST_WORKERS)]
    await asyncio.gather(*(server.heartbeat(name, "busy", pod=f"{name.name:x>36}", **says) for name in names))
    port = reserved_port()
    await server.command("CONFIG", "SET", "port", str(port))
    access = replace(ACCESS, hosts=StoreHosts(("127.0.0.0/8",)))
    async with reading(record(f"redis://127.0.0.1:{port}"), access=access) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        view = stores.view(KEY)
        assert view is not None
        assert len(view.reports) == MOST_WORKERS
        more = [f"worker-{number}" for number in range(3 * MOST_WORKERS)]
        await server.command("SADD", "{openseer:default/job}:workers", *more)
        await until(lambda: "answers with more than 65536 elements" in caplog.text)


def test_a_hostile_store_cannot_make_more_reports_than_the_fleets_size() -> None:
    def worker(number: int, pod: str) -> WorkerStatus:
        metrics = WorkerMetrics({"pod": pod, "sick": "x" * 10**4})
        return WorkerStatus(f"worker-{number}", "boot", 0.0, 0, Heartbeat(WorkerState.SICK, metrics))

    many = [worker(number % MOST_WORKERS, f"pod-{number}") for number in range(3 * MOST_WORKERS)]
    reports = reports_of([worker(0, "x" * 2000), worker(10**5, "far"), *many], FleetSpec())
    assert len(reports) <= 2 * MOST_WORKERS
    assert not {"x" * 2000, "far"} & reports.keys()
    assert max(len(report.sick) for report in reports.values()) <= 256
