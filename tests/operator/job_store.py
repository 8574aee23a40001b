"""A real Redis with the store of one job, and calls of its driver and workers."""

from os import kill
from pathlib import Path
from typing import Any

from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store
from openseer_store.redis_link import RedisLink

ANN, BOB = WorkerId("worker-0", "ann"), WorkerId("worker-1", "bob")
_QUERY = ClaimQuery("v1", (SHARED_LANE,), 8, 10**6, whole(16), quantum=512, context_tokens=8192, slack=8)


class JobStore:
    """`async with JobStore(folder) as server`: the store of default/job, in its own server."""

    def __init__(self, folder: Path, namespace: str = "default", job: str = "job") -> None:
        self._redis = EmbeddedRedis(folder)
        self._names = namespace, job
        self.url = ""
        self.store: Store

    async def __aenter__(self) -> "JobStore":
        self.url = await self._redis.__aenter__()
        namespace, job = self._names
        self.store = await open_store(self.url, job, namespace)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()
        await self._redis.__aexit__(None, None, None)

    async def heartbeat(self, worker: WorkerId, state: str, **metrics: float | int | str) -> None:
        """Writes a worker's heartbeat."""
        await self.store.heartbeat(worker, Heartbeat(WorkerState(state), WorkerMetrics(metrics)))

    async def submit(self, name: str, batch: int = 0) -> list[Claim]:
        """Submits a group of two requests, which ANN claims at once."""
        spec = GroupSpec(
            id=GroupId(batch, name),
            version="v1",
            ordinal=0,
            prompt=pack_tokens([1, 2]),
            max_tokens=1000,
            biases=(0.0, 0.0),
            lanes=(SHARED_LANE,) * 2,
            priority=Priority(base=0.0),
            enqueued_at=0.0,
        )
        await self.store.submit([spec])
        return await self.store.claim(ANN, _QUERY)

    async def extend(self, claim: Claim, count: int) -> None:
        """Writes the first `count` tokens of a request as ANN."""
        delta = Delta(claim.request, claim.fence, 0, pack_tokens(range(count)), pack_logprobs([0.0] * count))
        await self.store.extend(ANN, [delta], [], lease_seconds=60.0, version="v1", lanes=(SHARED_LANE,))

    async def command(self, *arguments: str) -> Any:
        """Runs one Redis command on a new connection."""
        link = RedisLink(self.url, "{beside}")
        try:
            return await link.command(*arguments)
        finally:
            await link.close()

    def send_signal(self, number: int) -> None:
        """Sends a signal to the server."""
        assert self._redis.pid is not None
        kill(self._redis.pid, number)
