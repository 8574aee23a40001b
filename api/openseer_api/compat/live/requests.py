"""The live side of a job: what requests of the compatible routes wait in, and the one task that queues them.

A request becomes a member of a group in a live batch, in pieces as they come: while one write is under way the next
members gather, so a burst of requests is one write. Whoever waits is told by the task that reads the batch.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openseer_api.compat.live.batch import LiveBatch, alike
from openseer_api.compat.live.members import LiveRequest, tell
from openseer_api.http.problems import BusyProblem
from openseer_api.job.context import JobContext
from openseer_core.errors import OpenseerError
from openseer_core.queue.batch import BatchRecord, OpenBatch
from openseer_core.queue.states import Event
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.transaction import takes_groups
from openseer_core.wire.batches import BatchSpec

log = logging.getLogger(__name__)

LIVE = "live"
"""The key in a batch's metadata that tells whose live batch it is."""
ROUND_SECONDS = 0.25
"""Between two looks at held members and at batches that may be closed."""
LOAD_SECONDS = 0.25
"""How old what is known of the queue's length may be."""

_LIVES: "dict[JobContext, Live]" = {}


class Live:
    """Members that wait, batches that carry them, and members by the names that an abort may use.

    `transfer`: what has been said so far of a transfer of weights, which is published when it is finished.
    """

    def __init__(self, job: JobContext) -> None:
        self.boot = uuid.uuid4().hex[:12]
        self.calls: dict[str, list[LiveRequest]] = {}
        self._job = job
        self._pending: list[LiveRequest] = []
        self._batches: list[LiveBatch] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.transfer: dict[str, Any] = {}
        self._load: tuple[float, int] = (float("-inf"), 0)

    # ---- for the routes

    def ask(self, members: list[LiveRequest], named: Mapping[str, list[LiveRequest]]) -> None:
        """Takes members in; each one's `ended` tells how it ended. `named`: those that an abort of that name ends."""
        self._job.counts["compatible_requests"] += len(members)
        for name, of in named.items():
            self.calls.setdefault(name, []).extend(of)
        self._pending += members
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())

    def forget(self, named: Mapping[str, list[LiveRequest]]) -> None:
        """The call is answered; an abort no longer finds it."""
        for name, members in named.items():
            gone = set(map(id, members))
            left = [member for member in self.calls.get(name, ()) if id(member) not in gone]
            if left:
                self.calls[name] = left
            else:
                self.calls.pop(name, None)

    async def drop(self, members: Sequence[LiveRequest]) -> int:
        """Ends members that have not ended, partial tokens kept. Returns how many."""
        count = 0
        for member in members:
            if member.dropped or (member.ended.done() and not member.ended.cancelled()):
                continue
            member.dropped, count = True, count + 1
            if member in self._pending:
                self._pending.remove(member)
                tell(member, None)
            elif member.request is not None:
                await self._job.store.end_groups([member.request.group], Event.CANCEL, member.request.index)
        return count

    async def drop_named(self, names: Iterable[str]) -> int:
        """Ends the members of these calls; unknown names are skipped."""
        return await self.drop([member for name in names for member in self.calls.get(name, ())])

    async def drop_all(self) -> int:
        """Ends everything that came through the compatible routes, also by other processes."""
        unqueued = {id(one): one for of in self.calls.values() for one in of if one.request is None}
        count = await self.drop([*unqueued.values()])
        for record in await self.records():
            count += await self._job.store.end(record.number, Event.CANCEL)
        return count

    async def records(self) -> list[BatchRecord]:
        """Live batches of all processes that serve this job."""
        return [one for one in await self._job.store.batches() if owner(self._job, one)]

    async def unfinished(self) -> int:
        """Requests in them that have not ended."""
        return sum(one.progress.requests - one.progress.closed for one in await self.records())

    async def close(self) -> None:
        """Lets go of everything; whoever waits is told so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for member in self._pending:
            tell(member, None)
        self._pending.clear()
        for batch in self._batches:
            await batch.close()
        self._batches.clear()

    async def check_room(self, count: int) -> None:
        """Raises BusyProblem while so many more may not wait."""
        now = time.monotonic()
        if now - self._load[0] > LOAD_SECONDS:
            load = await self._job.store.load()
            self._load = (now, sum(load.waiting.values()))
        queued, limit = self._load[1] + len(self._pending), self._job.limits.queued
        if queued + count > limit:
            raise BusyProblem(f"{limit} requests wait already; send this again when some have ended")

    # ---- the task that queues

    async def _serve(self) -> None:
        """Until nobody waits and every live batch is gone."""
        while self._pending or self._batches:
            self._wake.clear()
            try:
                await self._round()
            except OpenseerError as error:
                log.warning("%s/%s: %s", self._job.job.namespace, self._job.job.name, error)
            if not self._wake.is_set():
                await _wait(self._wake, ROUND_SECONDS)

    async def _round(self) -> None:
        orders = (await self._job.glance(fresh=bool(self._pending))).orders
        if self._pending and admits(orders):
            members, self._pending = self._pending, []
            try:
                await self._place(members, orders)
            except OpenseerError as error:
                for member in members:
                    tell(member, error)
        for batch in self._batches:
            await batch.tend(orders.version)
        self._batches = [batch for batch in self._batches if not batch.gone]

    async def _place(self, members: list[LiveRequest], orders: FleetSpec) -> None:
        places: dict[int, tuple[LiveBatch, list[list[LiveRequest]]]] = {}
        for together in alike(members):
            batch = self._joined(together, orders) or await self._current(orders)
            places.setdefault(batch.number, (batch, []))[1].append(together)
        for batch, groups in places.values():
            await batch.put(groups)
        # New weights may have come just before: then these go on with them, like all that was queued earlier.
        after = await self._job.store.fleet_spec()
        if after.version != orders.version:
            for batch, _ in places.values():
                await self._job.store.change_version(batch.number, after.version)

    def _joined(self, members: list[LiveRequest], orders: FleetSpec) -> LiveBatch | None:
        """The batch that has their group."""
        fit = (one for one in self._batches if one.version == orders.version and not (one.sealed or one.gone))
        return next((one for one in fit if one.group_for(members) is not None), None)

    async def _current(self, orders: FleetSpec) -> LiveBatch:
        """The batch that takes new groups of the fleet's version."""
        for batch in self._batches:
            await batch.tend(orders.version)
            if batch.retired is None and not batch.gone:
                return batch
        spec = BatchSpec(weights_version=orders.version, metadata={LIVE: self.boot})
        record, _ = await self._job.store.open_batch(OpenBatch(orders.version, spec.model_dump_json()))
        batch = LiveBatch(self._job, record.number, orders.version)
        self._batches.append(batch)
        return batch


def admits(orders: FleetSpec) -> bool:
    """Whether requests are queued now. While the fleet drains for new weights it would never be done otherwise."""
    ongoing = orders.active_transaction
    drains = ongoing is not None and ongoing.publish.mode == "drain" and ongoing.phase != "prefetch"
    return not (orders.held or drains) and takes_groups(orders, orders.version)


def owner(job: JobContext, record: BatchRecord) -> str:
    """Whose live batch it is; "" for a trainer's own."""
    return str(job.spec_of(record).metadata.get(LIVE, ""))


def live_of(job: JobContext) -> Live:
    """The job's live side in this process."""
    live = _LIVES.get(job)
    if live is None:
        live = _LIVES[job] = Live(job)
        job.closing.append(lambda: _end(job))
    return live


def boot_of(job: JobContext) -> str:
    """Which live batches are this process's; "" while no compatible route was called."""
    return _LIVES[job].boot if job in _LIVES else ""


async def _end(job: JobContext) -> None:
    await _LIVES.pop(job).close()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
