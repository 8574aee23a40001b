"""Measures the queue's rate: whole cycles on a real Redis with many waiting requests.

    python benchmarks/store_queue.py

In a cycle one request is claimed, extended once and completed, and its group's position is updated. `batched`: each
call is for all requests of a worker, as in the product. `unbatched`: one call per request. `paced`: batched, at the
target's rate. `claim_p99_ms` is that of `paced`, because at the maximum rate a claim waits for the other clients' calls
(see `ways`).
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, get_args

from support.stamp import Stamp

from openseer_core.ids import GroupId, WorkerId
from openseer_core.manifest.fleet import Fsync, StoreSpec
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, Finish, Rescore, WriteOutcome
from openseer_core.queue.policy import Policy, policy
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store
from openseer_store.redis_link import RedisLink

JOB = "benchmark"
DEFAULT_FSYNC: Fsync = StoreSpec().fsync
VERSION = "initial"
TARGET_CYCLES_PER_SECOND = 5000.0
TARGET_CLAIM_P99_MS = 5.0
GROUP_SIZE = 16
PROMPT_TOKENS = 256
MAX_TOKENS = 4096
EXTEND = pack_tokens(range(32)), pack_logprobs([-0.5] * 32)
LAST = pack_tokens(range(32, 40)), pack_logprobs([-0.5] * 8)


@dataclass(frozen=True)
class Plan:
    """The work of each client."""

    name: str
    url: str
    clients: int
    slots: int
    seconds: float
    most_cycles: int
    """Of each client; then it stops early, so that the queue never gets shorter than half."""
    cycles_per_second: float = 0.0
    """Rate of all clients together; 0: the maximum rate."""


def main() -> None:
    """Runs the three ways and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="processes, each one worker")
    parser.add_argument("--requests", type=int, default=100_000, help="waiting requests at the start of each way")
    parser.add_argument("--slots", type=int, default=32, help="concurrent requests of a client; default: as in a job")
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of each way")
    parser.add_argument("--fsync", choices=get_args(Fsync), default=DEFAULT_FSYNC, help="as in a job's spec.store")
    parser.add_argument("--quick", action="store_true", help="5 s per way")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.seconds = 5.0
    measurements = asyncio.run(measure(options)) | stamp.fields()
    show(measurements)
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=2) + "\n")


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all measurements on one server with append-only file."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedRedis(Path(folder) / "store", options.fsync) as url:
            link, store = RedisLink(url, "{benchmark}"), await open_store(url, JOB)
            before = await memory(link)
            await top_up(store, options.requests)
            bytes_each = (await memory(link) - before) / options.requests
            flat_out = Plan(
                "batched",
                url,
                options.clients,
                options.slots,
                options.seconds,
                options.requests // 2 // options.clients,
            )
            paced = replace(flat_out, name="paced", cycles_per_second=TARGET_CYCLES_PER_SECOND)
            ways: dict[str, dict[str, float]] = {}
            for plan in (flat_out, paced, replace(flat_out, name="unbatched", slots=1)):
                await top_up(store, options.requests)
                await settle(link)  # one that began by itself would refuse the next
                await link.command("BGREWRITEAOF")
                await settle(link)
                ways[plan.name] = await run_clients(plan)
            await link.close()
            await store.close()
    return {
        "cycles_per_second": ways["batched"]["cycles_per_second"],
        "claim_p99_ms": ways["paced"]["claim_p99_ms"],
        "unbatched_cycles_per_second": ways["unbatched"]["cycles_per_second"],
        "unbatched_claim_p99_ms": ways["unbatched"]["claim_p99_ms"],
        "memory_bytes_per_queued_request": round(bytes_each, 1),
        "ways": ways,
        "fsync": options.fsync,
        "clients": options.clients,
        "requests": options.requests,
        "slots": options.slots,
        "group_size": GROUP_SIZE,
        "prompt_tokens": PROMPT_TOKENS,
    }


async def memory(link: RedisLink) -> int:
    """Bytes of the server's memory in use."""
    info = (await link.command("INFO", "memory")).decode()
    return int(info.split("used_memory:")[1].split()[0])


async def settle(link: RedisLink) -> None:
    """Waits until the append-only file is compact, so that its rewriting does not overlap the measurement."""
    await asyncio.sleep(0.2)
    while "aof_rewrite_in_progress:1" in (await link.command("INFO", "persistence")).decode():
        await asyncio.sleep(0.1)


async def top_up(store: Store, requests: int) -> None:
    """Submits groups until a given number of requests wait."""
    progress = await store.progress(0)
    missing = requests - (progress.requests - progress.closed)
    chosen = policy("context-aware")
    first = progress.groups
    count = max(0, -(-missing // GROUP_SIZE))
    await store.submit([make_group(ordinal, chosen) for ordinal in range(first, first + count)])


def make_group(ordinal: int, chosen: Policy) -> GroupSpec:
    """One group as a job would submit it."""
    name = GroupId(0, f"prompt-{ordinal:06}")
    view = GroupView(name, 0, ordinal, GROUP_SIZE, MAX_TOKENS, 0.0)
    return GroupSpec(
        id=name,
        version=VERSION,
        ordinal=ordinal,
        prompt=pack_tokens(range(ordinal, ordinal + PROMPT_TOKENS)),
        max_tokens=MAX_TOKENS,
        biases=(0.0,) * GROUP_SIZE,
        lanes=(SHARED_LANE,) * GROUP_SIZE,
        priority=chosen.priority(view),
        enqueued_at=0.0,
        sampling='{"temperature": 1.0, "top_p": 1.0}',
    )


async def run_clients(plan: Plan) -> dict[str, float]:
    """The rates of all clients of one way together."""
    context = mp.get_context("spawn")
    barrier, queue = context.Barrier(plan.clients), context.SimpleQueue()
    clients = [context.Process(target=client, args=(plan, n, barrier, queue)) for n in range(plan.clients)]
    for process in clients:
        process.start()
    reports = [await asyncio.to_thread(queue.get) for _ in clients]
    for process in clients:
        await asyncio.to_thread(process.join)
    rates = [cycles / seconds for cycles, seconds, _ in reports]
    claims = sorted(seconds for _, _, times in reports for seconds in times)
    return {
        "cycles_per_second": round(sum(rates), 1),
        "claim_p50_ms": round(1000 * statistics.median(claims), 3),
        "claim_p99_ms": round(1000 * claims[int(0.99 * len(claims))], 3),
        "claims": len(claims),
    }


def client(plan: Plan, number: int, barrier: Barrier, queue: "SimpleQueue[tuple[int, float, list[float]]]") -> None:
    """One worker's process."""
    queue.put(asyncio.run(work(plan, number, barrier)))


async def work(plan: Plan, number: int, barrier: Barrier) -> tuple[int, float, list[float]]:
    """Number of cycles, their seconds, and the seconds of each claim."""
    store = await open_store(plan.url, JOB)
    worker = Cycler(store, WorkerId(f"client-{number}", "1"), plan.slots)
    await asyncio.to_thread(barrier.wait)
    start = time.perf_counter()
    pause = plan.slots * plan.clients / plan.cycles_per_second if plan.cycles_per_second else 0.0
    due = start + pause * number / plan.clients
    while (now := time.perf_counter()) - start < plan.seconds and worker.cycles < plan.most_cycles:
        if now < due:
            await asyncio.sleep(due - now)
        due += pause
        await worker.round()
    seconds = time.perf_counter() - start
    await store.close()
    return worker.cycles, seconds, worker.claim_seconds


class Cycler:
    """Repeats whole cycles with as many requests as it has slots."""

    def __init__(self, store: Store, worker: WorkerId, slots: int) -> None:
        self._store = store
        self._worker = worker
        self._policy = policy("context-aware")
        self._query = ClaimQuery(
            VERSION, (SHARED_LANE,), slots, 10**6, whole(16), quantum=1024, context_tokens=8192, slack=slots
        )
        self.cycles = 0
        self.claim_seconds: list[float] = []

    async def round(self) -> None:
        """Claims, extends and completes; repeats a completion whose group has changed meanwhile, as a worker does."""
        start = time.perf_counter()
        claims = await self._store.claim(self._worker, self._query)
        self.claim_seconds.append(time.perf_counter() - start)
        deltas = [Delta(claim.request, claim.fence, 0, *EXTEND) for claim in claims]
        await self._store.extend(self._worker, deltas, [], lease_seconds=10.0, version=VERSION, lanes=(SHARED_LANE,))
        views = {claim.request.group: claim.view for claim in claims}
        left = claims
        while left:
            replies = await self._store.complete(self._worker, self._finishes(left, dict(views)))
            views.update({reply.view.id: reply.view for reply in replies if reply.view})
            left = [claim for claim, reply in zip(left, replies, strict=True) if reply.outcome is WriteOutcome.STALE]
        self.cycles += len(claims)

    def _finishes(self, claims: list[Claim], views: dict[GroupId, GroupView]) -> list[Finish]:
        finishes: list[Finish] = []
        for claim in claims:
            view = views[claim.request.group].with_finish(40)
            views[view.id] = view
            delta = Delta(claim.request, claim.fence, 32, *LAST)
            rescore = Rescore(view, self._policy.priority(view))
            finishes.append(Finish(delta, Status.OK, FinishReason.STOP, "", rescore))
        return finishes


def show(measurements: dict[str, Any]) -> None:
    """The table."""
    clients, requests, slots = (measurements[name] for name in ("clients", "requests", "slots"))
    print(f"{clients} clients, {requests} requests queued, {slots} slots each")
    print(f"{'':12}{'cycles/s':>10}{'claim p50':>12}{'claim p99':>12}")
    for name, row in measurements["ways"].items():
        p50, p99 = row["claim_p50_ms"], row["claim_p99_ms"]
        print(f"{name:12}{row['cycles_per_second']:>10.0f}{p50:>9.2f} ms{p99:>9.2f} ms")
    print(f"memory: {measurements['memory_bytes_per_queued_request']:.0f} bytes per queued request")
    print(f"target: {TARGET_CYCLES_PER_SECOND:.0f} cycles/s, claim p99 {TARGET_CLAIM_P99_MS:.0f} ms at that rate")


if __name__ == "__main__":
    main()
