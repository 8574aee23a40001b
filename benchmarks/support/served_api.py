"""Two processes: the trainers' API as in `openseer serve`, over a real Redis, and workers without engines."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from openseer_api import heap
from openseer_api.app import create_app
from openseer_api.batch_controller import control
from openseer_api.http.auth import BearerAuth
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext, OneJob
from openseer_core.ids import INITIAL_VERSION, WorkerId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import ClaimQuery, Delta, Finish
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_core.wire.batches import Group
from openseer_store.connect import open_store

TOKEN = "benchmark"
GROUP_SIZE = 8
PROMPT_TOKENS = 128
PLAYERS = 1
CLAIMED_AT_ONCE = 256
TICK_SECONDS = 0.001


def job() -> RolloutJob:
    """A job of mode serve; none of its engines is started."""
    spec = {
        "mode": "serve",
        "model": {"path": "none", "engine": "scripted"},
        "groupSize": GROUP_SIZE,
        "sampling": {"maxTokens": 4096},
        "workers": {"replicas": PLAYERS},
    }
    head = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "load"}}
    return parse_job(head | {"spec": spec}, "benchmark")


def serve(url: str, port: int, longest: Any = None) -> None:
    """Runs the server until it is killed. `longest`: shared; the longest pause of its loop so far, in CPU seconds."""

    async def tick() -> None:
        while longest is not None:
            before = time.process_time()
            await asyncio.sleep(TICK_SECONDS)
            longest.value = max(longest.value, time.process_time() - before)

    async def run() -> None:
        context = JobContext(job(), await open_store(url, "load"))
        app = create_app(OneJob(context), BearerAuth(TOKEN))
        tasks = [asyncio.create_task(control(context)), asyncio.create_task(tick())]
        await WebServer(app, port=port, finish_seconds=1, on_start=heap.keep).serve()
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def play(url: str, number: int, length: int) -> None:
    """Completes all waiting requests with responses of `length` tokens, until the process is killed."""
    tokens, logprobs = pack_tokens(range(length)), pack_logprobs([-0.5 - position / 977 for position in range(length)])
    worker = WorkerId(f"worker-{number}", "0")
    query = ClaimQuery(
        INITIAL_VERSION, (SHARED_LANE,), CLAIMED_AT_ONCE, 10**9, whole(16), 1024, 10**6, slack=CLAIMED_AT_ONCE
    )

    async def run() -> None:
        store = await open_store(url, "load")
        while True:
            claims = await store.claim(worker, query)
            ends = [
                Finish(Delta(claim.request, claim.fence, 0, tokens, logprobs), Status.OK, FinishReason.STOP)
                for claim in claims
            ]
            if ends:
                await store.complete(worker, ends)
            else:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def groups(count: int) -> Iterator[Group]:
    """Groups with prompts of PROMPT_TOKENS tokens."""
    for number in range(count):
        ids = [(number * 31 + position * 7) % 50_000 for position in range(PROMPT_TOKENS)]
        yield Group(id=f"g{number}", prompt_token_ids=ids)
