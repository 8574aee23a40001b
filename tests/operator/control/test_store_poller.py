"""Stores of jobs are read in the background: changes are known soon, and a silent store delays no other."""

import asyncio
import gc
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from openseer_core.ids import WorkerId
from openseer_core.manifest.fleet import Autoscale
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import GpuSeconds, StoreView, WorkerReport
from openseer_core.queue.batch import OpenBatch
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import AdapterSpec, Publish, Source, TransactionPhase
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_operator.control import store_poller
from openseer_operator.control.read_slots import READS_AT_ONCE
from openseer_operator.control.store_poller import READS_PER_SECOND, StorePoller
from openseer_operator.control.store_views import weights_event
from openseer_operator.kube.api import Api
from openseer_operator.objects.reading import JobKey, JobRecord, read_job
from openseer_process.store_access import StoreAccess
from tests.operator.job_store import ANN, BOB, JobStore
from tests.operator.stores import ACCESS

pytestmark = [pytest.mark.redis]
KEY = ("default", "job")


def record(
    url: str, name: str = "job", uid: str = "", *, serves: bool = False, namespace: str = "default", **store: Any
) -> JobRecord:
    raw: dict[str, Any] = {
        "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid of {name}", "generation": 1},
        "spec": {
            "model": {"path": "m"},
            **({"mode": "serve"} if serves else {"prompts": {"path": "p.jsonl"}}),
            "workers": {"replicas": 2},
            "store": store or {"url": url},
        },
    }
    found = read_job(raw)
    assert found.job is not None, found.problems
    return found


@asynccontextmanager
async def reading(
    *records: JobRecord, api: Api | None = None, access: StoreAccess = ACCESS
) -> AsyncGenerator[tuple[StorePoller, Counter[JobKey]]]:
    """The poller, and the number of announcements per job. A URL in the job needs no call to an API server."""
    changes = Counter[JobKey]()
    client = ApiClient(Configuration())
    stores = StorePoller(api or Api(client), lambda key: changes.update([key]), access=access)
    try:
        for watched in records:
            stores.watch(watched)
        yield stores, changes
    finally:
        await stores.close()
        await client.close()


async def until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def view(stores: StorePoller) -> StoreView:
    found = stores.view(KEY)
    assert found is not None
    return found


async def test_reports_of_workers_are_stored_by_pod(server: JobStore) -> None:
    await server.heartbeat(ANN, "busy", pod="pod-a", held_tokens=700)
    await server.heartbeat(BOB, "sick", pod="pod-b", sick="Xid 79")
    await server.heartbeat(WorkerId("worker-2", "carl"), "busy")
    await server.heartbeat(WorkerId("visitor", "dora"), "busy", pod="pod-d")
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        assert view(stores).reports == {
            "pod-a": WorkerReport(0, "pod-a", WorkerState.BUSY, 700, ""),
            "pod-b": WorkerReport(1, "pod-b", WorkerState.SICK, 0, "Xid 79"),
        }


async def test_a_new_pods_report_does_not_count_for_the_old_pod(server: JobStore) -> None:
    await server.heartbeat(ANN, "busy", pod="old")
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        await server.heartbeat(WorkerId("worker-0", "later"), "starting", pod="new")
        await until(lambda: "new" in view(stores).reports)
        assert set(view(stores).reports) == {"new"}


async def test_changes_that_need_action_are_announced_and_tokens_are_not(server: JobStore) -> None:
    claims = await server.submit("a")
    await server.heartbeat(ANN, "busy", pod="pod-a", held_tokens=1)
    async with reading(record(server.url)) as (stores, announced):
        await until(lambda: announced[KEY] == 1)
        await server.heartbeat(ANN, "busy", pod="pod-a", held_tokens=101)
        await server.extend(claims[0], 100)  # a read of these tokens follows the read of earlier changes
        await until(lambda: view(stores).progress.tokens == 100)
        assert view(stores).reports["pod-a"].held_tokens == 101
        assert announced[KEY] == 1
        await server.heartbeat(ANN, "sick", pod="pod-a", sick="Xid 79")
        await until(lambda: announced[KEY] == 2)


async def test_a_serving_jobs_counts_follow_its_batches_and_its_tokens_only_grow(
    server: JobStore,
) -> None:
    (one, _), (two, _) = [await server.store.open_batch(OpenBatch("v1", "{}", key)) for key in "ab"]
    first = await server.submit("a", one.number)
    await server.extend(first[0], 100)
    async with reading(record(server.url, serves=True)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        assert (view(stores).progress.requests, view(stores).progress.tokens) == (2, 100)
        second = await server.submit("b", two.number)
        await server.extend(second[0], 50)
        await until(lambda: view(stores).progress.tokens == 150)
        await server.store.seal(one.number)
        await server.store.forget(one.number)
        await until(lambda: view(stores).progress.requests == 2)
        assert view(stores).progress.tokens == 50
        assert not view(stores).progress.sealed
        assert stores.tokens(KEY) == 150
        speed = stores.tokens_per_second(KEY)
        assert speed is not None
        assert speed > 0


async def test_a_release_of_the_gpus_is_announced_at_once(server: JobStore) -> None:
    async with reading(record(server.url, serves=True)) as (stores, announced):
        await until(lambda: announced[KEY] == 1)
        assert not view(stores).released
        assert await server.store.swap_fleet_spec(FleetSpec(revision=1, rest="sleep"))
        assert await server.store.swap_fleet_spec(FleetSpec(revision=2, rest="stop"))
        await until(lambda: view(stores).released)
        assert announced[KEY] == 2
        assert await server.store.swap_fleet_spec(FleetSpec(revision=3))
        await until(lambda: not view(stores).released)
        assert announced[KEY] == 3


async def test_speed_and_held_tokens_are_recent_values(server: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_poller, "READ_EVERY_SECONDS", 1.0)
    claims = await server.submit("a")
    await server.heartbeat(ANN, "busy", pod="pod-a")
    start = time.monotonic()
    async with reading(record(server.url)) as (stores, _):
        assert stores.tokens_per_second(KEY) is None
        await until(lambda: stores.view(KEY) is not None)
        await server.extend(claims[0], 500)
        await until(lambda: view(stores).progress.tokens == 500)
        speed = stores.tokens_per_second(KEY)
        assert speed is not None
        assert 500 / (time.monotonic() - start) <= speed < 600
        assert stores.inflight(KEY) == 2


async def test_a_workers_speed_is_measured_per_busy_second(server: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_poller, "LEAST_BUSY_SECONDS", 1.0)
    claims = await server.submit("a")
    await server.heartbeat(ANN, "busy", pod="pod-a")
    await server.heartbeat(BOB, "busy", pod="pod-b")
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        assert view(stores).worker_speed is None
        assert view(stores).inflight == 2
        await server.extend(claims[0], 500)
        await until(lambda: bool(view(stores).worker_speed))
        speed, fleet = view(stores).worker_speed, stores.tokens_per_second(KEY)
        assert speed is not None
        assert fleet is not None
        assert speed == pytest.approx(fleet / 2)


async def test_an_autoscaled_job_is_reconciled_when_a_request_arrives(server: JobStore) -> None:
    watched = record(server.url)
    assert watched.job is not None
    spec = watched.job.spec.model_copy(
        update={"workers": watched.job.spec.workers.model_copy(update={"max": 4, "autoscale": Autoscale()})}
    )
    scales = replace(watched, job=watched.job.model_copy(update={"spec": spec}))
    async with reading(scales) as (_, announced):
        await until(lambda: announced[KEY] == 1)
        await server.submit("a")
        await until(lambda: announced[KEY] == 2)


async def test_gpu_time_includes_ended_workers(server: JobStore) -> None:
    await server.store.heartbeat(ANN, Heartbeat(WorkerState.BUSY, idle_seconds=3.0, busy_seconds=40.0))
    await server.store.deregister(ANN)
    await server.store.heartbeat(BOB, Heartbeat(WorkerState.IDLE, idle_seconds=5.0))
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        assert view(stores).gpu_seconds == GpuSeconds(idle=8, busy=40)


def views_kept() -> int:
    gc.collect()
    return sum(type(kept) is StoreView for kept in gc.get_objects())


@pytest.mark.slow
async def test_a_silent_store_loses_its_view_with_an_announcement_and_recovers(server: JobStore) -> None:
    before = views_kept()
    async with reading(record(server.url)) as (stores, announced):
        await until(lambda: announced[KEY] == 1)
        server.send_signal(signal.SIGSTOP)
        try:
            assert stores.view(KEY) is not None
            await until(lambda: stores.view(KEY) is None)
            assert not stores.settling(KEY)
            await until(lambda: announced[KEY] == 2)
            assert views_kept() <= before
        finally:
            server.send_signal(signal.SIGCONT)
        await until(lambda: stores.view(KEY) is not None)
        assert announced[KEY] == 3


async def test_a_store_is_not_silent_before_its_first_read(server: JobStore) -> None:
    async with reading(record(server.url)) as (stores, _):
        assert stores.view(KEY) is None
        assert stores.settling(KEY)
        await until(lambda: stores.view(KEY) is not None)
        assert not stores.settling(KEY)
        assert not stores.settling(("default", "unknown"))


@asynccontextmanager
async def listener(answer: bytes) -> AsyncGenerator[tuple[str, list[float]]]:
    """Accepts every connection and answers every command with `answer`; yields the times of connections."""
    times: list[float] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(time.monotonic())
        writers.append(writer)
        while await reader.read(4096):
            writer.write(answer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://u:p@127.0.0.1:{listening.sockets[0].getsockname()[1]}/0", times
    finally:
        listening.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


@pytest.mark.slow
async def test_a_refusing_store_is_read_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_poller, "READ_EVERY_SECONDS", 0.3)
    refusal = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    async with listener(refusal) as (url, times), reading(record(url)) as (stores, _):
        await until(lambda: len(times) == 3)
        assert times[1] - times[0] > 0.45
        assert times[2] - times[1] > 0.9
        assert stores.view(KEY) is None


@pytest.mark.slow
async def test_silent_stores_do_not_delay_reads_of_others(server: JobStore) -> None:
    async with listener(b"") as (url, _):
        # In sequence the reads would take 96 s.
        silent = [record(url, f"silent-{number}", namespace="other") for number in range(24 * READS_AT_ONCE)]
        async with reading(*silent, record(server.url)) as (stores, _):
            await until(lambda: stores.view(KEY) is not None, 60.0)


async def test_an_unreadable_heartbeat_does_not_end_the_reads(server: JobStore) -> None:
    await server.heartbeat(ANN, "busy", pod="pod-a")
    await server.command("HSET", "{openseer:default/job}:worker:worker-0", "info", "not what a worker says")
    async with reading(record(server.url)) as (stores, _):
        await asyncio.sleep(0.5)
        assert stores.view(KEY) is None
        await server.heartbeat(ANN, "busy", pod="pod-a")
        await until(lambda: stores.view(KEY) is not None)


async def test_an_unwatched_job_is_not_read_and_its_connection_is_closed(server: JobStore) -> None:
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        before = len((await server.command("CLIENT", "LIST")).splitlines())
        stores.unwatch(KEY)
        assert stores.view(KEY) is None
        assert len(stores) == 0
        async with asyncio.timeout(60.0):
            while len((await server.command("CLIENT", "LIST")).splitlines()) != before - 1:
                await asyncio.sleep(0.02)


async def test_a_new_job_of_the_same_name_is_another_job(server: JobStore) -> None:
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        stores.watch(record(server.url))
        assert stores.view(KEY) is not None
        stores.watch(record(server.url, uid="a new one"))
        assert stores.view(KEY) is None
        await until(lambda: stores.view(KEY) is not None)


async def test_a_purge_leaves_one_expiring_key_that_invalidates_old_fences(server: JobStore) -> None:
    await server.submit("a")
    await server.heartbeat(ANN, "busy", pod="pod-a")
    async with reading(record(server.url)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        await stores.purge(KEY)
        stores.unwatch(KEY)
    assert await server.command("KEYS", "{openseer:default/job}*") == [b"{openseer:default/job}:store"]
    assert 0 < await server.command("TTL", "{openseer:default/job}:store") <= 24 * 3600


async def test_each_of_many_stores_is_read_less_often(tmp_path: Path) -> None:
    many = [record(f"unix://{tmp_path}/nobody", f"job-{number}") for number in range(300)]
    async with reading(*many[:10]) as (stores, _):
        few = stores.interval
        for one in many:
            stores.watch(one)
        assert stores.interval == len(many) / READS_PER_SECOND > few


@pytest.mark.cluster
async def test_a_store_with_its_url_in_a_secret_is_read_once_the_secret_exists(server: JobStore, api: Api) -> None:
    name = f"url-{uuid.uuid4().hex[:8]}"
    async with reading(record("", secretRef={"name": name, "key": "url"}), api=api) as (stores, _):
        await asyncio.sleep(0.3)
        assert stores.view(KEY) is None
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": server.url}}
        await api.create("Secret", "default", secret)
        await until(lambda: stores.view(KEY) is not None)


def _ended(number: int, phase: TransactionPhase, message: str = "") -> WeightsTransaction:
    return WeightsTransaction(
        id=number,
        publish=Publish(version=f"v{number}", source=Source(path="/weights")),
        previous="initial",
        previous_source=None,
        phase=phase,
        started_at=10.0,
        entered_at=12.0,
        finished_at=12.5,
        message=message,
    )


def test_the_end_of_a_weights_transaction_is_an_event_with_its_outcome() -> None:
    done, failed = weights_event(_ended(1, "done")), weights_event(_ended(2, "failed", "worker-1: too late"))
    assert (done.warning, done.reason, done.message) == (False, "WeightsPublished", "weights v1 after 2.5 s")
    assert (failed.warning, failed.reason) == (True, "WeightsFailed")
    assert failed.message == "weights v2 were not published, the fleet keeps initial: worker-1: too late"
    publish = Publish(version="v3", source=Source(path="/weights"), adapter=AdapterSpec(name="math"))
    first = _ended(3, "failed", "worker-1: too late").model_copy(update={"publish": publish, "previous": ""})
    assert weights_event(first).message == "weights v3 (adapter math) were not published: worker-1: too late"


async def test_only_transactions_after_the_first_read_are_announced_once(server: JobStore) -> None:
    announced: list[Announce] = []

    async def announce(_job: JobRecord, what: Announce) -> None:
        announced.append(what)

    await server.store.swap_fleet_spec(FleetSpec(revision=1, transaction=_ended(1, "done")))
    client = ApiClient(Configuration())
    stores = StorePoller(Api(client), lambda _key: None, announce)
    try:
        one = record(server.url, serves=True)
        stores.watch(one)
        await until(lambda: stores.view(one.key) is not None)
        await server.store.swap_fleet_spec(FleetSpec(revision=2, transaction=_ended(2, "failed", "why")))
        await until(lambda: bool(announced))
        await asyncio.sleep(5 * stores.interval)
        assert [what.reason for what in announced] == ["WeightsFailed"]
    finally:
        await stores.close()
        await client.close()
