"""Counters of a job for Prometheus never fall, because Prometheus takes a fall for a restart."""

import asyncio
import signal
from pathlib import Path

import pytest

from openseer_core.ids import GroupId
from openseer_core.plan.observation import GpuSeconds
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.messages import Delta
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_operator.control import reconcile
from openseer_operator.control.counters import KEPT_BATCHES, BatchTokens, JobCounters
from openseer_operator.kube.api import Api
from tests.operator.control.test_reconcile import Bench
from tests.operator.control.test_store_poller import KEY, reading, record, until, view
from tests.operator.job_store import ANN, JobStore


@pytest.mark.cluster
@pytest.mark.redis
async def test_counters_of_a_batch_job_are_constant_while_its_store_is_silent(
    api: Api, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 3600.0)
    async with JobStore(tmp_path / "redis", namespace) as server:
        bench = Bench(api, namespace, server.url)
        claims = await server.submit("a")
        key = await bench.submit(workers={"replicas": 1})
        await bench.settle(key)
        await server.extend(claims[0], 100)
        await server.store.heartbeat(ANN, Heartbeat(WorkerState.IDLE, WorkerMetrics(), None, 500.0, 0.0))
        await bench.until_read(key, lambda view: view.progress.tokens == 100)
        await bench.reconcile(key)
        server.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(120):
                while bench.stores.view(key) is not None:
                    await asyncio.sleep(0.2)
            await bench.reconcile(key)
        finally:
            server.send_signal(signal.SIGCONT)
            await bench.stores.close()
        counters = bench.board.jobs[key].counters
        assert (counters.tokens, counters.gpu_seconds) == (100, GpuSeconds(idle=500))


@pytest.mark.redis
async def test_tokens_of_a_serving_job_do_not_fall_when_its_store_is_rolled_back(server: JobStore) -> None:
    one, _ = await server.store.open_batch(OpenBatch("v1", "{}", "a"))
    claims = await server.submit("a", one.number)
    await server.extend(claims[0], 100)
    for name in await server.command("KEYS", "*"):
        await server.command("COPY", name, name, "DB", "1")
    served = record(server.url, serves=True)
    async with reading(served) as (stores, _):
        more = Delta(claims[0].request, claims[0].fence, 100, pack_tokens(range(50)), pack_logprobs([0.0] * 50))
        await server.store.extend(ANN, [more], [], lease_seconds=60.0, version="v1", lanes=(SHARED_LANE,))
        await until(lambda: stores.view(KEY) is not None and view(stores).progress.tokens == 150)
        await server.command("SWAPDB", "0", "1")
        await until(lambda: view(stores).progress.tokens == 100)
        assert stores.tokens(KEY) == 150
        stores.unwatch(KEY)
        assert stores.tokens(KEY) == 150
        stores.watch(served)
        await until(lambda: stores.view(KEY) is not None)
        assert stores.tokens(KEY) == 150
        stores.forget(KEY)
        assert stores.tokens(KEY) == 0


@pytest.mark.redis
async def test_carried_over_tokens_count_once(server: JobStore) -> None:
    one, _ = await server.store.open_batch(OpenBatch("v1", "{}", "a"))
    two, _ = await server.store.open_batch(OpenBatch("v1", "{}", "b"))
    claims = await server.submit("a", one.number)
    await server.extend(claims[0], 100)
    await server.store.carry([GroupId(one.number, "a")], two.number, "v1")
    async with reading(record(server.url, serves=True)) as (stores, _):
        await until(lambda: stores.view(KEY) is not None)
        assert stores.tokens(KEY) == 100


def test_a_batch_that_disappears_and_reappears_counts_once() -> None:
    tokens = BatchTokens("uid")
    for batches in ({1: 10}, {2: 5}, {1: 8, 2: 6}, {1: 12}):
        tokens.note(batches)
    assert tokens.total == 18


def test_deleted_batches_are_remembered_up_to_a_limit() -> None:
    tokens = BatchTokens("uid")
    for number in range(KEPT_BATCHES + 2):
        tokens.note({number: 1})
    tokens.note({1: 1})
    assert tokens.total == KEPT_BATCHES + 2
    tokens.note({0: 1})
    assert tokens.total == KEPT_BATCHES + 3


def test_ends_are_counted_for_workers_and_the_driver() -> None:
    counters = JobCounters("uid")
    counters.note_ends(("worker-1", "driver", "worker-300"))
    counters.note_ends(("worker-1",))
    assert dict(counters.ended) == {"worker": 3, "driver": 1}
