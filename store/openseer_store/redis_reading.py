"""The reading verbs of a job's store on Redis, and the link that reading and writing verbs share."""

import asyncio
from collections.abc import Callable

from openseer_core.ids import GroupId, RequestId
from openseer_core.numbers import FIRST_BASE
from openseer_core.queue import budgets
from openseer_core.queue.batch import BatchRecord, Entry, QueueLoad
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.messages import BatchProgress, JournalEntry, RequestRecord
from openseer_core.queue.store_memory import StoreMemory
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_store import codec
from openseer_store.keys import STORE, prefix
from openseer_store.redis_dial import Dial
from openseer_store.redis_link import RETRY_SECONDS, RedisLink
from openseer_store.replies import read_count, read_info
from openseer_store.reply_limit import USUAL_LIMIT, ReplyLimit

BLOCK_SECONDS = 1.0
"""Limit of one wait for a result on a connection, in seconds; a longer wait is repeated."""
STEP_WORKERS = 128
"""Number of heartbeats that are decoded before other asyncio tasks may run."""


class RedisReading:
    """A job's store on a Redis server: the reading verbs. `clock`: a wall clock for tests; default: the server's."""

    def __init__(
        self,
        url: str,
        job: str,
        namespace: str = "default",
        *,
        clock: Callable[[], float] | None = None,
        retry_seconds: float = RETRY_SECONDS,
        loading_seconds: float | None = None,
        tells_again: bool = False,
        others_seconds: float = 0.0,
        dial: Dial | None = None,
        limit: ReplyLimit = USUAL_LIMIT,
    ) -> None:
        self._prefix = prefix(namespace, job)
        self._clock = clock
        self._link = RedisLink(
            url,
            self._prefix,
            retry_seconds,
            loading_seconds,
            tells_again=tells_again,
            others_seconds=others_seconds,
            dial=dial,
            limit=limit,
        )

    async def connect(self) -> None:
        """Checks that the server answers and is usable. Raises StoreError, StoreUnavailableError."""
        await self._link.command("PING")

    async def close(self) -> None:
        await self._link.close()

    @property
    def epoch(self) -> int:
        return self._link.epoch

    def _at(self) -> str:
        return repr(float(self._clock())) if self._clock else ""

    # ---- the verbs that read

    async def longest_earlier(self, digests: list[str]) -> list[int]:
        return [int(length) for length in await self._link.run("longest_earlier", digests)]

    async def progress(self, batch: int) -> BatchProgress:
        return codec.read_progress(await self._link.command("HGETALL", f"{self._prefix}:batch:{batch}"))

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        if wait_seconds > 0:
            await self._wait_for_entry(batch, cursor, wait_seconds)
        arguments = (batch, f"{cursor + 1}-0", limit, budgets.REPLY_BYTES)
        return codec.read_entries(await self._link.run("results", arguments))

    async def _wait_for_entry(self, batch: int, cursor: int, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            block = min(left, BLOCK_SECONDS)
            command = ("XREAD", "COUNT", 1, "BLOCK", max(1, round(block * 1000)), "STREAMS")
            if await self._link.command(
                *command, f"{self._prefix}:batch:{batch}:results", f"{cursor}-0", patience=block
            ):
                return

    async def workers(self) -> list[WorkerStatus]:
        rows, found = await self._link.run("workers", ()), list[WorkerStatus]()
        for start in range(0, len(rows), STEP_WORKERS):
            found += map(codec.read_worker, rows[start : start + STEP_WORKERS])
            await asyncio.sleep(0)  # lets other tasks run: the caller may read many stores
        return found

    async def base(self) -> int:
        return int(await self._link.command("HGET", self._prefix + STORE, "base") or FIRST_BASE)

    async def memory(self) -> StoreMemory:
        info = read_info(await self._link.command("INFO", "memory"))
        return StoreMemory(*(read_count(info.get(name, 0)) for name in ("used_memory", "maxmemory")))

    async def group_view(self, group: GroupId) -> GroupView:
        row = await self._link.run("view", (str(group),))
        if not row:
            raise KeyError(group)
        return codec.read_view(row)

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        found, seen = list[GroupSpec](), 0
        reach = (start + limit - 1, budgets.REPLY_BYTES)
        while seen < limit and (page := await self._link.run("groups", (batch, start + seen, *reach))):
            found += codec.read_specs(page).values()
            seen += len(page) // 2
        return found

    async def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        row = await self._link.run("record", (str(request.group), request.index, start, -1 if most is None else most))
        if not row:
            raise KeyError(request)
        return codec.read_record(request, row)

    async def lengths(self, requests: list[RequestId]) -> list[int]:
        return [int(length) for length in await self._link.run("lengths", [str(request) for request in requests])]

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        command = ("XRANGE", f"{self._prefix}:batch:{batch}:journal", f"{start + 1}-0", "+", "COUNT", limit)
        return [codec.read_entry(fields[1]) for _, fields in await self._link.command(*command)]

    async def batches(self) -> list[BatchRecord]:
        return codec.read_batches(await self._link.run("batches", (False,)))

    async def batch(self, number: int) -> BatchRecord | None:
        found = codec.read_batches(await self._link.run("batches", (number,)))
        return found[0] if found else None

    async def batch_of_key(self, key: str) -> BatchRecord | None:
        number = await self._link.command("GET", f"{self._prefix}:key:{key}")
        return await self.batch(int(number)) if number else None

    async def group_names(self, batch: int, start: int, limit: int) -> list[str]:
        command = ("LRANGE", f"{self._prefix}:batch:{batch}:groups", start, start + limit - 1)
        return [GroupId.parse(gid.decode()).name for gid in await self._link.command(*command)]

    async def spec(self, group: GroupId) -> GroupSpec | None:
        data = await self._link.command("GET", f"{self._prefix}:spec:{group}")
        return codec.read_specs([str(group).encode(), data])[str(group).encode()] if data else None

    async def verdict(self, group: GroupId) -> bool | None:
        data = await self._link.command("HGET", f"{self._prefix}:batch:{group.batch}:verdicts", group.name)
        return None if data is None else data == b"1"

    async def load(self) -> QueueLoad:
        return codec.read_load(await self._link.run("load", ()))

    async def now(self) -> float:
        return float(await self._link.run("now", (), at=self._at()))
