"""The store on Redis: each verb is one Lua script, run once per call whatever the number of its items."""

import asyncio
from collections.abc import Callable

from openseer_core.chunk import (
    BatchProgress,
    Claim,
    ClaimAsk,
    Delta,
    Directive,
    ExtendReply,
    Finish,
    JournalEntry,
    Reply,
    RequestRecord,
    Rescore,
    Result,
    WorkerInfo,
    WorkerStatus,
)
from openseer_core.chunk_queue import REAP_LIMIT
from openseer_core.errors import DriverFencedError
from openseer_core.group import GroupSpec, GroupView
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_store import codec
from openseer_store.keys import RESULTS, STORE, prefix
from openseer_store.port import CLAIMING_STATES
from openseer_store.redis_link import RETRY_SECONDS, RedisLink

SUBMIT_GROUPS = 64
"""Most groups in one call; a submission is cut into pieces so that no script blocks the workers for long."""
SUBMIT_BYTES = 2**20
ABORT_GROUPS = 16
REPLY_BYTES = 8 * 2**20
"""A reading verb stops adding once its answer holds so much."""
BLOCK_SECONDS = 1.0
"""Longest single wait for a result on a connection."""
FORGET_SECONDS = 24 * 3600
"""A worker of a deleted job that nobody could reach is taken to be gone after so long."""
SCAN_COUNT = 1000


class RedisStore:
    """A job's store on a Redis server. `clock`: passed by tests; otherwise the server's own clock counts."""

    def __init__(
        self,
        url: str,
        job: str,
        namespace: str = "default",
        *,
        clock: Callable[[], float] | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._prefix = prefix(namespace, job)
        self._clock = clock
        self._link = RedisLink(url, self._prefix, retry_seconds)

    async def connect(self) -> None:
        """Checks that the server is there and fit. Raises StoreError, StoreUnavailableError."""
        await self._link.command("PING")

    async def close(self) -> None:
        await self._link.close()

    def _at(self) -> str:
        return repr(float(self._clock())) if self._clock else ""

    # ---- the worker's verbs

    async def claim(self, worker: WorkerId, ask: ClaimAsk) -> list[Claim]:
        arguments = (
            worker.name,
            str(worker),
            ask.version,
            ask.lanes,
            ask.slots,
            ask.blocks,
            ask.block_tokens,
            ask.quantum,
            ask.context_tokens,
            ask.margin,
            ask.slack,
            ask.lease_seconds,
            ask.max_losses,
        )
        return codec.read_claims(await self._link.run("claim", arguments, at=self._at()))

    async def extend(
        self,
        worker: WorkerId,
        deltas: list[Delta],
        rescores: list[Rescore],
        *,
        lease_seconds: float,
        version: str,
        lanes: tuple[str, ...],
    ) -> ExtendReply:
        rows = [codec.delta_row(delta) for delta in deltas]
        news = [codec.rescore_row(rescore) for rescore in rescores]
        arguments = (worker.name, version, lanes, lease_seconds, rows, news)
        reply = await self._link.run("extend", arguments, *codec.delta_bytes(deltas), at=self._at())
        return codec.read_extend(reply)

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        rows = [codec.finish_row(finish) for finish in finishes]
        blobs = codec.delta_bytes([finish.delta for finish in finishes])
        return [codec.read_reply(row) for row in await self._link.run("complete", rows, *blobs, at=self._at())]

    async def give_back(self, worker: WorkerId, deltas: list[Delta]) -> list[Reply]:
        rows = [codec.delta_row(delta) for delta in deltas]
        reply = await self._link.run("give_back", rows, *codec.delta_bytes(deltas), at=self._at())
        return [codec.read_reply(row) for row in reply]

    async def heartbeat(self, worker: WorkerId, info: WorkerInfo) -> Directive:
        arguments = (worker.name, worker.boot, info.state in CLAIMING_STATES)
        drain = await self._link.run("heartbeat", arguments, codec.pack_info(info), at=self._at())
        return Directive(drain=bool(drain))

    async def deregister(self, worker: WorkerId) -> None:
        await self._link.run("deregister", (worker.name, worker.boot), at=self._at())

    # ---- the driver's verbs

    async def now(self) -> float:
        if self._clock:
            return self._clock()
        seconds, microseconds = await self._link.command("TIME")
        return int(seconds) + int(microseconds) / 1_000_000

    async def acquire_driver(self, boot: str) -> int:
        return int(await self._link.run("acquire_driver", (boot,)))

    async def submit(self, groups: list[GroupSpec]) -> int:
        new = 0
        names: list[str] = []
        blobs: list[bytes] = []
        for spec in groups:
            names.append(str(spec.id))
            blobs += (codec.pack_row(spec), codec.pack_spec(spec))
            if len(names) >= SUBMIT_GROUPS or sum(map(len, blobs)) >= SUBMIT_BYTES:
                new += await self._link.run("submit", names, *blobs)
                names, blobs = [], []
        if names:
            new += await self._link.run("submit", names, *blobs)
        return new

    async def seal(self, batch: int) -> None:
        await self._link.command("HSET", f"{self._prefix}:batch:{batch}", "sealed", 1)

    async def progress(self, batch: int) -> BatchProgress:
        return codec.read_progress(await self._link.command("HGETALL", f"{self._prefix}:batch:{batch}"))

    async def results(self, cursor: str, limit: int, wait_seconds: float = 0.0) -> list[Result]:
        first = int(cursor.split("-")[0]) + 1
        if wait_seconds > 0:
            await self._wait_for_result(f"{first - 1}-0", wait_seconds)
        return codec.read_results(await self._link.run("results", (f"{first}-0", limit, REPLY_BYTES)))

    async def _wait_for_result(self, cursor: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            block = min(left, BLOCK_SECONDS)
            words = ("XREAD", "COUNT", 1, "BLOCK", max(1, round(block * 1000)), "STREAMS")
            if await self._link.command(*words, self._prefix + RESULTS, cursor, patience=block):
                return

    async def acknowledge(self, driver: int, cursor: str) -> None:
        if not await self._link.run("acknowledge", (driver, int(cursor.split("-")[0]))):
            raise DriverFencedError(f"driver {driver} of {self._prefix}: another driver has taken over; this one stops")

    async def acknowledged(self) -> str:
        number = await self._link.command("HGET", f"{self._prefix}:driver", "acknowledged")
        return f"{int(number or 0)}-0"

    async def workers(self) -> list[WorkerStatus]:
        return [codec.read_worker(row) for row in await self._link.run("workers", ())]

    async def request_drain(self, worker: str) -> None:
        await self._link.command("SADD", f"{self._prefix}:drains", worker)

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        total = 0
        while True:
            count = await self._link.run("reap", (max_losses, everything), at=self._at())
            total += count
            if not everything or count < REAP_LIMIT:
                return total

    async def abort(self, batch: int) -> int:
        start, ended = 0, 0
        while True:
            seen, count = await self._link.run("abort", (batch, start, start + ABORT_GROUPS - 1), at=self._at())
            ended += count
            start += ABORT_GROUPS
            if seen < ABORT_GROUPS:
                return ended

    async def purge(self, *, forget: bool = False) -> None:
        await self._link.command("HINCRBY", self._prefix + STORE, "epoch", 1)
        cursor = b"0"
        pattern = self._prefix + ":*"
        while True:
            cursor, keys = await self._link.command("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            doomed = [key for key in keys if key.decode() != self._prefix + STORE]
            if doomed:
                await self._link.command("UNLINK", *doomed)
            if int(cursor) == 0:
                break
        if forget:
            await self._link.command("EXPIRE", self._prefix + STORE, FORGET_SECONDS)

    # ---- reading

    async def group_view(self, group: GroupId) -> GroupView:
        row = await self._link.run("view", (str(group),))
        if not row:
            raise KeyError(group)
        return codec.read_view(row)

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        found: list[GroupSpec] = []
        while len(found) < limit:
            arguments = (batch, start + len(found), start + limit - 1, REPLY_BYTES)
            page = codec.read_specs(await self._link.run("groups", arguments))
            found += page.values()
            if not page:
                break
        return found

    async def record(self, request: RequestId) -> RequestRecord:
        row = await self._link.run("record", (str(request.group), request.index))
        if not row:
            raise KeyError(request)
        return codec.read_record(request, row)

    async def journal(self, start: int, limit: int) -> list[JournalEntry]:
        words = ("XRANGE", f"{self._prefix}:journal", f"{start + 1}-0", "+", "COUNT", limit)
        return [codec.read_entry(fields[1]) for _, fields in await self._link.command(*words)]
