"""Live batches: their groups, their end, and their deletion after their process has ended."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from math import nan
from pathlib import Path
from typing import Any

import pytest

from openseer_api.compat.live import batch
from openseer_api.compat.live.batch import GROUPS
from openseer_api.compat.live.orphans import ORPHAN_SECONDS
from openseer_api.job.context import UploadLimits
from openseer_core.ids import INITIAL_VERSION, GroupId, WorkerId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.kv_blocks import whole as whole_layout
from openseer_core.queue.messages import Claim, ClaimQuery, Delta
from openseer_core.tokens import pack_logprobs
from openseer_core.wire.batches import BatchSpec
from openseer_store.embedded import EmbeddedRedis
from openseer_store.memory import MemoryStore
from openseer_store.redis_store import RedisStore
from openseer_worker.engine_requests import refusal
from tests.api.compat.stories import PROMPT, get, groups, long_job, post, running, until, whole
from tests.api.served import Served, served, serving_job


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedRedis(Path(tmp_path_factory.mktemp("redis")))
    with asyncio.Runner() as runner:
        yield runner.run(server.__aenter__())
        runner.run(server.__aexit__(None, None, None))


@asynccontextmanager
async def on_redis(url: str, name: str, **options: Any) -> AsyncGenerator[Served]:
    store = RedisStore(url, name)
    try:
        async with served(store=store, **options) as server:
            yield server
            await server.context.close()
    finally:
        await store.close()


WORKER = WorkerId("worker-0", "played")
QUERY = ClaimQuery(
    INITIAL_VERSION,
    (SHARED_LANE,),
    slots=1,
    blocks=100,
    layout=whole_layout(16),
    quantum=64,
    context_tokens=4096,
    max_losses=0,
)


def long() -> dict[str, Any]:
    return {"sampling_params": {"max_new_tokens": 30_000, "min_new_tokens": 30_000}}


def short() -> dict[str, Any]:
    return {"max_new_tokens": 3, "min_new_tokens": 0}


@pytest.mark.redis
def test_redis_keeps_groups_that_grow_while_they_run(redis_url: str) -> None:
    async def story() -> None:
        async with on_redis(redis_url, "grow", job=long_job(400), held=True) as server:
            calls: list[asyncio.Task[dict[str, Any]]] = []

            async def is_joined() -> bool:
                return await groups(server) == {"live-1": len(calls)}

            for number in range(6):
                body = {"input_ids": PROMPT, "sampling_params": {"sampling_seed": number}}
                calls.append(asyncio.create_task(post(server, "/generate", body)))
                await until(is_joined)
                await running(server)
            server.release()
            answers = await asyncio.gather(*calls)
            spec = await server.store.spec(GroupId(1, "live-1"))
            assert spec is not None
            assert spec.seeds == tuple(range(6))
            for index, answer in enumerate(answers):
                whole("1/live-1", index, answer["output_ids"])
                assert len(answer["output_ids"]) == 400
            call = asyncio.create_task(post(server, "/generate", {"rid": "x", "input_ids": [1]} | long()))
            await running(server)
            await post(server, "/abort_request", {"rid": "x"})
            assert (await call)["meta_info"]["finish_reason"]["type"] == "abort"
            assert await post(server, "/pause") == {"status": "paused"}
            assert await get(server, "/is_paused") == {"is_paused": True}

    asyncio.run(story())


async def test_a_full_live_batch_is_replaced_and_deleted() -> None:
    async with served(job=serving_job(sampling={"maxTokens": 3})) as server:
        count = GROUPS + 40
        bodies = [{"input_ids": [number, 1], "sampling_params": short()} for number in range(count)]
        for start in range(0, count, 50):
            await asyncio.gather(*(post(server, "/generate", body) for body in bodies[start : start + 50]))
        sizes = [record.progress.groups for record in await server.store.batches()]
        assert sum(sizes) <= count
        assert max(sizes) < count

        async def first_is_gone() -> bool:
            return min(record.number for record in await server.store.batches()) > 1

        await until(first_is_gone)
        assert server.context.counts["compatible_requests"] == count
        assert server.context.counts["compatible_grouped"] == 0


async def test_requests_beyond_the_queue_limit_are_refused_with_retry_after() -> None:
    async with Served(limits=UploadLimits(queued=4)) as server:
        answer = await server.http.post("/v1/completions", json={"prompt": PROMPT, "n": 5})
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["error"]["type"] == "rate_limit_error"


async def test_a_request_of_a_deleted_batch_is_reported_as_lost() -> None:
    async with served(job=long_job()) as server:
        call = asyncio.create_task(post(server, "/generate", {"input_ids": PROMPT}, status=503))
        await running(server)
        await server.call("DELETE", "/batches/1", status=204)
        assert "send it again" in (await call)["error"]["message"]


async def first_claim(server: Served) -> Claim:
    """Leases the first waiting request to a worker that the test plays; no loss is allowed."""
    claims: list[Claim] = []

    async def claimed() -> bool:
        claims.extend(await server.store.claim(WORKER, QUERY))
        return bool(claims)

    await until(claimed)
    return claims[0]


async def test_a_request_that_no_engine_can_run_is_answered_400_with_the_reason() -> None:
    async with Served(job=serving_job()) as server:
        call = asyncio.create_task(post(server, "/generate", {"input_ids": PROMPT}, status=400))
        claim = await first_claim(server)
        await server.store.complete(WORKER, [refusal(claim, "token 9999 is not in the vocabulary")])
        assert (await call)["error"]["message"].endswith("failed: token 9999 is not in the vocabulary")


async def test_a_request_that_loses_its_workers_is_answered_503_with_the_losses() -> None:
    async with Served(job=serving_job()) as server:
        call = asyncio.create_task(post(server, "/generate", {"input_ids": PROMPT}, status=503))
        claim = await first_claim(server)
        await server.store.give_back(WORKER, [Delta(claim.request, claim.fence, 0)], lost=True)
        assert "losses of its worker: more than spec." in (await call)["error"]["message"]


async def test_a_closing_server_deletes_its_live_batches() -> None:
    async with served(job=long_job()) as server:
        call = asyncio.create_task(post(server, "/generate", {"input_ids": PROMPT}, status=503))
        await running(server)
        await server.context.close()
        assert "closing" in (await call)["error"]["message"]
        assert await server.store.batches() == []


async def test_live_batches_of_dead_processes_only_are_deleted() -> None:
    seconds = [1000.0]
    store = MemoryStore(lambda: seconds[0])
    for boot in ("dead", "dead", "living"):
        if boot == "living":
            for _ in range(int(ORPHAN_SECONDS)):
                seconds[0] += 1.0
                await store.now()
        spec = BatchSpec(metadata={"live": boot})
        await store.open_batch(OpenBatch("initial", spec.model_dump_json()))
    await store.open_batch(OpenBatch("initial", BatchSpec().model_dump_json()))
    async with Served(store=store):
        await asyncio.sleep(0.5)
        assert len(await store.batches()) == 4
        seconds[0] += 1.0

        async def two_are_left() -> bool:
            return [record.number for record in await store.batches()] == [3, 4]

        await until(two_are_left)


async def test_a_process_renews_its_sign_of_life_during_a_long_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_SECONDS", 0.2)
    async with served(job=long_job(), held=True) as server:
        long = {"max_new_tokens": 500, "min_new_tokens": 500}
        call = asyncio.create_task(post(server, "/generate", {"input_ids": PROMPT, "sampling_params": long}))
        await running(server)
        first, *_ = await server.store.batches()

        async def newer_replace_older_signs() -> bool:
            numbers = {record.number for record in await server.store.batches()}
            assert first.number in numbers
            return max(numbers) >= first.number + 3 and first.number + 1 not in numbers

        await until(newer_replace_older_signs)
        server.release()
        assert (await call)["output_ids"]

        async def nothing_is_left() -> bool:
            return await server.store.batches() == []

        await until(nothing_is_left)


async def test_a_job_with_a_closed_lane_for_each_worker_serves_groups_that_grow() -> None:
    job = serving_job(rollout={"policy": "round-robin", "quantumTokens": 16, "checkpointSeconds": 0.05})
    async with served(job=job) as server:
        calls = [post(server, "/generate", {"input_ids": PROMPT, "sampling_params": short()}) for _ in range(6)]
        assert all(answer["output_ids"] for answer in await asyncio.gather(*calls))
        await post(server, "/generate", {"input_ids": PROMPT, "sampling_params": short()})
        assert await groups(server) == {"live-1": 7}


async def test_a_failed_response_has_its_reason_and_is_not_called_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_finite(group: str, index: int, begin: int, end: int) -> bytes:
        del group, index
        return pack_logprobs([nan] * (end - begin))

    monkeypatch.setattr("openseer_worker.scripted.engine.scripted_logprobs", nothing_finite)
    async with served() as server:
        error = (await post(server, "/generate", {"input_ids": PROMPT, "return_logprob": True}, status=500))["error"]
        assert "failed: scores are not finite: token 0: found log-probability nan" in error["message"]
