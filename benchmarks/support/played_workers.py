"""Simulates the drivers and workers of many jobs in their stores: batches, heartbeats, claims, results."""

import asyncio
import time

from openseer_core.errors import OpenseerError
from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import ClaimQuery, Delta, Finish
from openseer_core.queue.policy import policy
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.connect import open_store
from openseer_store.port import Store
from support.control_plane import Client

Key = tuple[str, str]
"""Namespace and name of a job."""

CONNECTIONS = 16
"""Stores that are open at the same time."""
BEAT_SECONDS = 20.0
"""Between two heartbeats of a worker; the operator forgets one that is silent for 30 s."""
FINISHED_PER_BEAT = 2
"""Requests of each job that are finished between two heartbeats."""
GROUPS, GROUP_SIZE, TOKENS = 64, 16, 256
"""Of each job's batch: more than is finished while the benchmark runs."""
VERSION = "initial"
LEASE_SECONDS = 60.0


class PlayedWorkers:
    """`run` visits every job again and again, as soon as all its pods are Ready."""

    def __init__(self, client: Client, url: str, keys: list[Key], workers: int) -> None:
        self._client = client
        self._url = url
        self._workers = workers
        self._pods: dict[Key, dict[str, str]] = {}
        self._due: asyncio.PriorityQueue[tuple[float, Key]] = asyncio.PriorityQueue()
        for number, key in enumerate(keys):
            self._due.put_nowait((time.monotonic() + BEAT_SECONDS * number / len(keys), key))
        self.visits = 0
        self.failures = 0
        self.late_seconds = 0.0
        """The longest that a visit came too late: beyond 10 s, workers seem silent."""

    @property
    def jobs(self) -> int:
        """Jobs whose workers were seen."""
        return len(self._pods)

    async def run(self) -> None:
        """Visits the jobs until the task is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._visitor())

    async def _visitor(self) -> None:
        while True:
            due, key = await self._due.get()
            await asyncio.sleep(due - time.monotonic())
            try:
                if await self._visit(key):
                    self.late_seconds = max(self.late_seconds, time.monotonic() - due)
            except (OpenseerError, OSError, TimeoutError):
                self.failures += 1
            self._due.put_nowait((max(due + BEAT_SECONDS, time.monotonic()), key))

    async def _visit(self, key: Key) -> bool:
        """Visits a job; returns whether all its workers have pods that are Ready."""
        first = key not in self._pods
        if first:
            pods = await self._seen(key)
            if len(pods) < self._workers:
                return False
            self._pods[key] = pods
        store = await open_store(self._url, key[1], key[0])
        try:
            if first:
                await store.submit([_group(ordinal) for ordinal in range(GROUPS)])
                await store.seal(0)
            for name, uid in self._pods[key].items():
                metrics: dict[str, float | int | str] = {"pod": uid, "inflight": 1, "slots": 16, "held_tokens": TOKENS}
                await store.heartbeat(WorkerId(name, "1"), Heartbeat(WorkerState.BUSY, WorkerMetrics(metrics)))
            await _work(store, WorkerId(next(iter(self._pods[key])), "1"))
        finally:
            await store.close()
        self.visits += 1
        return not first

    async def _seen(self, key: Key) -> dict[str, str]:
        """The uid of each worker's pod in a job."""
        namespace, name = key
        selector = f"openseer.dev/job={name},openseer.dev/role=worker"
        pods = await self._client.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        metadata = [pod["metadata"] for pod in pods if pod["status"].get("phase") == "Running"]
        return {f"worker-{pod['labels']['openseer.dev/worker']}": pod["uid"] for pod in metadata}


async def _work(store: Store, worker: WorkerId) -> None:
    """Completes a few requests, each with a whole response."""
    query = ClaimQuery(
        VERSION,
        (SHARED_LANE,),
        slots=FINISHED_PER_BEAT,
        blocks=10**6,
        layout=whole(16),
        quantum=TOKENS,
        context_tokens=8192,
        slack=FINISHED_PER_BEAT,
        lease_seconds=LEASE_SECONDS,
    )
    claims = await store.claim(worker, query)
    deltas = [Delta(claim.request, claim.fence, 0, pack_tokens(range(TOKENS))) for claim in claims]
    await store.complete(worker, [Finish(delta, Status.OK, FinishReason.STOP) for delta in deltas])


def _group(ordinal: int) -> GroupSpec:
    name = GroupId(0, f"prompt-{ordinal:04}")
    view = GroupView(name, 0, ordinal, GROUP_SIZE, TOKENS, 0.0)
    return GroupSpec(
        id=name,
        version=VERSION,
        ordinal=ordinal,
        prompt=pack_tokens(range(32)),
        max_tokens=TOKENS,
        biases=(0.0,) * GROUP_SIZE,
        lanes=(SHARED_LANE,) * GROUP_SIZE,
        priority=policy("fifo").priority(view),
        enqueued_at=0.0,
    )
