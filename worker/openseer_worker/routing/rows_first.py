"""Wraps a worker's store: the rows of routed experts of tokens are written to files before the store gets the tokens.

So a reader of tokens in the store finds their rows, even if the worker has died since.
"""

from openseer_core.ids import WorkerId
from openseer_core.queue.messages import (
    Claim,
    ClaimQuery,
    Delta,
    ExtendReply,
    Finish,
    Reply,
    Rescore,
)
from openseer_core.queue.siblings import SiblingQuery, Siblings
from openseer_core.routed_rows import RowShape
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import Heartbeat, HeartbeatReply
from openseer_store.port import WorkerStore
from openseer_worker.routing.keeper import RouteKeeper
from openseer_worker.settings import WorkerSettings


def rows_first(settings: WorkerSettings, shape: RowShape | None, store: WorkerStore) -> tuple[RouteKeeper, WorkerStore]:
    """Returns the keeper of a worker's rows of `shape`, and the store to use: `store` itself if none are captured."""
    keeper = RouteKeeper(settings.routes, shape, settings.worker)
    return keeper, RowsFirst(store, keeper) if keeper.is_on else store


class RowsFirst(WorkerStore):
    """Wraps `store`: before every write of tokens, `keeper` writes their rows."""

    def __init__(self, store: WorkerStore, keeper: RouteKeeper) -> None:
        self._store = store
        self._keeper = keeper

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        claims = await self._store.claim(worker, query)
        await self._keeper.begin(claims, query.version)
        return claims

    async def extend(
        self,
        worker: WorkerId,
        deltas: list[Delta],
        rescores: list[Rescore],
        *,
        lease_seconds: float,
        version: str,
        lanes: tuple[str, ...],
        adapters: tuple[str, ...] = (),
    ) -> ExtendReply:
        keys = [delta.key for delta in deltas]
        await self._keeper.keep(keys, ended=False)
        reply = await self._store.extend(
            worker, deltas, rescores, lease_seconds=lease_seconds, version=version, lanes=lanes, adapters=adapters
        )
        self._keeper.note_replies(keys, reply.replies, ended=False)
        return reply

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        keys = [finish.delta.key for finish in finishes]
        await self._keeper.keep(keys, ended=True)
        replies = await self._store.complete(worker, finishes)
        self._keeper.note_replies(keys, replies, ended=True)
        return replies

    async def give_back(self, worker: WorkerId, deltas: list[Delta], *, lost: bool = False) -> list[Reply]:
        keys = [delta.key for delta in deltas]
        await self._keeper.keep(keys, ended=True)
        replies = await self._store.give_back(worker, deltas, lost=lost)
        self._keeper.note_replies(keys, replies, ended=True)
        return replies

    # ---- calls without tokens

    @property
    def epoch(self) -> int:
        return self._store.epoch

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        return await self._store.wait_for_work(version, lanes, seconds, adapters)

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        return await self._store.siblings(queries, limit_bytes)

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        return await self._store.heartbeat(worker, info)

    async def fleet_spec(self) -> FleetSpec:
        return await self._store.fleet_spec()

    async def deregister(self, worker: WorkerId) -> None:
        await self._store.deregister(worker)
