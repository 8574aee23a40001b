"""Measures the load of a fleet of simulated workers on one Redis, in real time.

    python benchmarks/fleet_scale.py
    python benchmarks/fleet_scale.py --quick

Each worker runs `--slots` requests at `--tokens-per-second` and calls the store as the product's worker does, with the
product's intervals of checkpoints (CheckpointPace), its rule for claims (Arrivals) and a heartbeat a second. Engines
and drafts are left out. Two cores cannot run the clients of a large fleet, so only `--drive` workers run. They
receive the whole fleet's number of running requests, so their intervals are those of the whole fleet, and their load on
Redis is extrapolated to `--workers` in proportion. Latencies are those of the driven workers.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import random
import resource
import tempfile
import time
from dataclasses import dataclass, field, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from store_queue import make_group
from support.stamp import Stamp

from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.group import SHARED_LANE, GroupView
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, Finish, Rescore, WriteOutcome
from openseer_core.queue.policy import policy
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import ITEM_BYTES, pack_logprobs, pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store
from openseer_store.redis_link import RedisLink
from openseer_worker.arrivals import Arrivals
from openseer_worker.pace import CheckpointPace

JOB = "fleet"
VERSION = "initial"
LANES = (SHARED_LANE,)
LEASE_SECONDS = 10.0
SHORTEST_SECONDS = 0.25
HEARTBEAT_SECONDS = 1.0
GROUP_SIZE = 16
TARGET_CORE_SHARE = 0.6
TARGET_CLAIM_P99_MS = 20.0
METRICS = WorkerMetrics({f"metric_{number}": float(number) for number in range(40)})
"""About as many metrics as a real worker's heartbeat has."""


@dataclass(frozen=True)
class Plan:
    """The work of each process of clients."""

    url: str
    workers: int
    drive: int
    first: int
    count: int
    slots: int
    tokens: int
    tokens_per_second: float
    seconds: float


@dataclass
class Account:
    """Measurements of the workers of one process. Latencies in seconds, by verb; `cpu`: seconds of the process."""

    latencies: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    intervals: list[float] = field(default_factory=list[float])
    completed: int = 0
    lost: int = 0
    empty_claims: int = 0
    cpu: float = 0.0


class SimulatedWorker:
    """One worker without an engine. Its first requests begin at different positions, so their ends are spread."""

    def __init__(self, store: Store, plan: Plan, number: int, account: Account) -> None:
        self._store, self._plan, self._account = store, plan, account
        self._id = WorkerId(f"worker-{number}", "1")
        self._random = random.Random(number)
        self._policy = policy("context-aware")
        self._query = ClaimQuery(VERSION, LANES, plan.slots, 10**6, whole(16), quantum=1024, context_tokens=8192)
        self._wake = asyncio.Event()
        self._arrivals = Arrivals(store, LANES, self._wake.set)
        self._pace = CheckpointPace(SHORTEST_SECONDS, LEASE_SECONDS)
        self._held: dict[str, tuple[Claim, float, int]] = {}
        self._written: dict[str, int] = {}
        self._views: dict[GroupId, GroupView] = {}
        self._is_first = True
        self._tokens, self._logprobs = pack_tokens(range(plan.tokens)), pack_logprobs([-0.5] * plan.tokens)

    async def run(self) -> None:
        """Runs the worker until the task is cancelled."""
        now = asyncio.get_running_loop().time
        extend_at = now() + self._random.uniform(0, SHORTEST_SECONDS)
        beat_at = now() + self._random.uniform(0, HEARTBEAT_SECONDS)
        try:
            while True:
                self._wake.clear()
                if now() >= beat_at:
                    beat_at = now() + HEARTBEAT_SECONDS
                    state = WorkerState.BUSY if self._held else WorkerState.IDLE
                    await self._timed("heartbeat", self._store.heartbeat(self._id, Heartbeat(state, METRICS)))
                await self._complete(now())
                if now() >= extend_at and self._held:
                    extend_at = now() + self._pace.seconds
                    await self._extend(now())
                while len(self._held) < self._plan.slots and self._arrivals.is_due((VERSION,)):
                    await self._claim(now())
                ends = [at + length / self._plan.tokens_per_second for _, at, length in self._held.values()]
                due = [beat_at, *([extend_at, min(ends)] if ends else [])]
                try:
                    async with asyncio.timeout(max(0.0, min(due) - now())):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            await self._arrivals.close()

    async def _timed(self, verb: str, call: Any) -> Any:
        begin = time.perf_counter()
        reply = await call
        self._account.latencies.setdefault(verb, []).append(time.perf_counter() - begin)
        return reply

    async def _claim(self, now: float) -> None:
        free = self._plan.slots - len(self._held)
        query = replace(self._query, slots=free)
        claims = await self._timed("claim" if self._held else "first claim", self._store.claim(self._id, query))
        for claim in claims:
            length = self._random.randint(1, self._plan.tokens) if self._is_first else self._plan.tokens
            self._held[str(claim.request)] = (claim, now, length)
            self._written[str(claim.request)] = 0
            self._views[claim.view.id] = claim.view
        self._account.empty_claims += not claims
        self._is_first = self._is_first and len(self._held) < self._plan.slots
        self._arrivals.note_claim((VERSION,), found=bool(claims))

    def _delta(self, name: str, now: float) -> Delta:
        claim, at, length = self._held[name]
        start, end = self._written[name], min(length, int((now - at) * self._plan.tokens_per_second))
        piece = slice(start * ITEM_BYTES, max(start, end) * ITEM_BYTES)
        return Delta(claim.request, claim.fence, start, self._tokens[piece], self._logprobs[piece])

    async def _extend(self, now: float) -> None:
        names = list(self._held)
        deltas = [self._delta(name, now) for name in names]
        call = self._store.extend(self._id, deltas, [], lease_seconds=LEASE_SECONDS, version=VERSION, lanes=LANES)
        reply = await self._timed("extend", call)
        whole = reply.fleet_load.inflight * self._plan.workers // self._plan.drive
        self._pace.note(self._account.latencies["extend"][-1], whole)
        self._account.intervals.append(self._pace.seconds)
        for name, delta in zip(names, reply.replies, strict=True):
            self._written[name] = delta.have
            if delta.outcome is not WriteOutcome.OK:
                self._account.lost += 1
                del self._held[name]

    async def _complete(self, now: float) -> None:
        rate = self._plan.tokens_per_second
        ended = [name for name, (_, at, length) in self._held.items() if now >= at + length / rate]
        while ended:
            finishes: list[Finish] = []
            for name in ended:
                claim, _, length = self._held[name]
                view = self._views[claim.request.group] = self._views[claim.request.group].with_finish(length)
                rescore = Rescore(view, self._policy.priority(view))
                finishes.append(Finish(self._delta(name, now), Status.OK, FinishReason.STOP, "", rescore))
            replies = await self._timed("complete", self._store.complete(self._id, finishes))
            self._views.update({reply.view.id: reply.view for reply in replies if reply.view})
            for name, reply in zip(ended, replies, strict=True):
                if reply.outcome is not WriteOutcome.STALE:
                    del self._held[name], self._written[name]
                    self._arrivals.note_room()
                    self._account.completed += reply.outcome is WriteOutcome.OK
                    self._account.lost += reply.outcome is not WriteOutcome.OK
            ended = [name for name, reply in zip(ended, replies, strict=True) if reply.outcome is WriteOutcome.STALE]


def clients(plan: Plan, queue: "SimpleQueue[Account | None]") -> None:
    """Runs workers in a process; sends None after a warm-up, then the measurements of the following seconds."""
    asyncio.run(_clients(plan, queue))


async def _clients(plan: Plan, queue: "SimpleQueue[Account | None]") -> None:
    account, stores = Account(), [await open_store(plan.url, JOB) for _ in range(plan.count)]
    workers = [SimulatedWorker(store, plan, plan.first + number, account) for number, store in enumerate(stores)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    await asyncio.sleep(plan.seconds / 3)
    queue.put(None)
    account.latencies.clear()
    account.intervals.clear()
    account.completed = account.empty_claims = 0
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(plan.seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    account.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    queue.put(account)
    for store in stores:
        await store.close()


async def info(link: RedisLink, section: str) -> dict[str, str]:
    """One section of the server's INFO."""
    lines = (await link.command("INFO", section)).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def script_us(link: RedisLink) -> int:
    """Microseconds that the server has spent in scripts so far."""
    found = (await info(link, "commandstats")).get("cmdstat_evalsha", "usec=0")
    return int(dict(part.split("=") for part in found.split(","))["usec"])


async def verb_costs(link: RedisLink, store: Store, options: argparse.Namespace) -> dict[str, float]:
    """Microseconds of Redis per request (extend, claim, complete) or call, with one worker; the minimum of 20 calls."""
    worker, costs = WorkerId("alone", "1"), dict[str, list[float]]()
    query = ClaimQuery(
        VERSION, LANES, options.slots, 10**6, whole(16), quantum=1024, context_tokens=8192, slack=options.slots
    )
    tokens, logprobs = pack_tokens(range(30)), pack_logprobs([-0.5] * 30)

    async def timed(verb: str, call: Any, share: int = 1) -> Any:
        before = await script_us(link)
        reply = await call
        costs.setdefault(verb, []).append((await script_us(link) - before) / share)
        return reply

    for _ in range(20):
        held = await timed("claim", store.claim(worker, query), options.slots)
        deltas = [Delta(claim.request, claim.fence, 0, tokens, logprobs) for claim in held]
        call = store.extend(worker, deltas, [], lease_seconds=LEASE_SECONDS, version=VERSION, lanes=LANES)
        await timed("extend", call, options.slots)
        ends = [Delta(claim.request, claim.fence, 30) for claim in held]
        finishes = [Finish(delta, Status.OK, FinishReason.STOP) for delta in ends]
        await timed("complete", store.complete(worker, finishes), options.slots)
        await timed("empty claim", store.claim(worker, replace(query, version="none")))
        await timed("heartbeat", store.heartbeat(worker, Heartbeat(WorkerState.BUSY, METRICS)))
    await store.deregister(worker)
    return {verb: round(min(found), 1) for verb, found in costs.items()}


async def redis_cpu(link: RedisLink) -> float:
    """CPU seconds of the server so far."""
    cpu = await info(link, "cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the fleet and returns its cost."""
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedRedis(Path(folder) / "store") as url:
            link, store = RedisLink(url, "{benchmark}"), await open_store(url, JOB)
            chosen = policy("context-aware")
            empty = int((await info(link, "memory"))["used_memory"])
            await store.submit([make_group(ordinal, chosen) for ordinal in range(options.groups)])
            queued = int((await info(link, "memory"))["used_memory"]) - empty
            costs = await verb_costs(link, store, options)
            queue: SimpleQueue[Account | None] = context.SimpleQueue()
            share = options.drive // options.generators
            plans = [
                Plan(
                    url, options.workers, options.drive, number * share, share, options.slots, options.tokens,
                    options.tokens_per_second, options.seconds,
                )
                for number in range(options.generators)
            ]  # fmt: skip
            processes = [context.Process(target=clients, args=(plan, queue)) for plan in plans]
            for process in processes:
                process.start()
            for _ in processes:
                await asyncio.to_thread(queue.get)
            await link.command("CONFIG", "RESETSTAT")
            begin, cpu = time.perf_counter(), await redis_cpu(link)
            accounts = [await asyncio.to_thread(queue.get) for _ in processes]
            seconds, cpu = time.perf_counter() - begin, await redis_cpu(link) - cpu
            script = dict(part.split("=") for part in (await info(link, "commandstats"))["cmdstat_evalsha"].split(","))
            progress = await store.progress(0)
            held = int((await info(link, "memory"))["used_memory"]) - empty - queued
            for process in processes:
                await asyncio.to_thread(process.join)
            await link.close()
            await store.close()
    done = [account for account in accounts if account is not None]
    return report(options, done, seconds, cpu) | {
        "script_us": costs,
        "script_us_per_call": round(float(script["usec_per_call"]), 1),
        "memory": {
            "bytes_per_queued_request": round(queued / options.groups / GROUP_SIZE, 1),
            "bytes_per_token": round(held / max(1, progress.tokens), 2),
            "tokens": progress.tokens,
        },
    }


def report(options: argparse.Namespace, accounts: list[Account], seconds: float, cpu: float) -> dict[str, Any]:
    """The measurements; `core_share`: Redis's share of one core, measured and extrapolated to the whole fleet."""
    verbs: dict[str, list[float]] = {}
    for account in accounts:
        for verb, latencies in account.latencies.items():
            verbs.setdefault(verb, []).extend(latencies)
    intervals = sorted(interval for account in accounts for interval in account.intervals)
    scale = options.workers / options.drive
    return {
        "core_share": {"measured": round(cpu / seconds, 4), "extrapolated": round(cpu / seconds * scale, 4)},
        "verbs": {
            verb: {
                "calls_per_second": round(len(found) / seconds, 1),
                "p50_ms": round(1000 * sorted(found)[len(found) // 2], 3),
                "p99_ms": round(1000 * sorted(found)[int(0.99 * len(found))], 3),
            }
            for verb, found in sorted(verbs.items())
        },
        "checkpoint_seconds": {"median": intervals[len(intervals) // 2], "longest": intervals[-1]},
        "completed_per_second": round(sum(account.completed for account in accounts) / seconds, 1),
        "leases_lost": sum(account.lost for account in accounts),
        "empty_claims_per_second": round(sum(account.empty_claims for account in accounts) / seconds, 1),
        "generator_cores": round(sum(account.cpu for account in accounts) / seconds, 2),
        "seconds": round(seconds, 1),
        **{name: getattr(options, name) for name in ("workers", "drive", "slots", "tokens", "tokens_per_second")},
        "groups": options.groups,
        "group_size": GROUP_SIZE,
    }


def show(found: dict[str, Any]) -> None:
    """Prints the measurements."""
    share, memory = found["core_share"], found["memory"]
    print(
        f"{found['drive']} of {found['workers']} workers driven, {found['slots']} requests each, {found['seconds']} s"
    )
    print(f"Redis: {share['measured']:.1%} of a core, {share['extrapolated']:.1%} for the whole fleet")
    print(f"clients: {found['generator_cores']:.2f} cores; leases lost: {found['leases_lost']}")
    pace = found["checkpoint_seconds"]
    print(f"checkpoints every {pace['median']:.2f} s (longest {pace['longest']:.2f})")
    costs = ", ".join(f"{verb} {us}" for verb, us in found["script_us"].items())
    print(f"scripts, us alone (claim, extend, complete: per request): {costs}")
    for verb, row in found["verbs"].items():
        print(f"{verb:12}{row['calls_per_second']:>9.1f}/s{row['p50_ms']:>9.2f} ms{row['p99_ms']:>9.2f} ms (p99)")
    print(f"memory: {memory['bytes_per_queued_request']} B per queued request, {memory['bytes_per_token']} B per token")
    print(f"target: {TARGET_CORE_SHARE:.0%} of a core, claim p99 {TARGET_CLAIM_P99_MS:.0f} ms, no lease lost")


def main() -> None:
    """Runs the fleet and prints its cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=500, help="workers of the whole fleet")
    parser.add_argument("--drive", type=int, default=100, help="workers of these that run")
    parser.add_argument("--generators", type=int, default=1, help="processes in which the driven workers run")
    parser.add_argument("--slots", type=int, default=64, help="concurrent requests of a worker")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens of each response")
    parser.add_argument("--tokens-per-second", type=float, default=30.0, help="rate of each request")
    parser.add_argument("--groups", type=int, default=10_000, help=f"queued groups, of {GROUP_SIZE} requests each")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="measured seconds, after a warm-up of a third of them"
    )
    parser.add_argument("--quick", action="store_true", help="20 workers driven, 500 groups, 10 s")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.drive, options.groups, options.seconds = 20, 500, 10.0
    found = asyncio.run(measure(options)) | stamp.fields()
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
