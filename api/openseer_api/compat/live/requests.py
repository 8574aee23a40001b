"""The live requests of a job: the unfinished requests of the compatible routes, and the one task that queues them.

A live request joins a group in a live batch. Live requests that arrive during a write are queued by the next write, so
a burst needs few writes. The task that reads the batch resolves each request when its result arrives.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence

from openseer_api.compat.live.batch import LiveBatch, by_group
from openseer_api.compat.live.live_request import LiveRequest, resolve
from openseer_api.http.problems import BusyProblem, NotFoundProblem
from openseer_api.job.context import JobContext
from openseer_core.errors import OpenseerError
from openseer_core.queue.batch import BatchRecord, OpenBatch
from openseer_core.queue.states import Event
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.versions import admits, successor
from openseer_core.wire.batches import BatchSpec

log = logging.getLogger(__name__)

LIVE = "live"
"""Key in a batch's metadata: the boot id of the process that owns the live batch."""
ROUND_SECONDS = 0.25
"""Interval of the rounds that queue pending requests and maintain the live batches, in seconds."""
LOAD_SECONDS = 0.25
"""Cache TTL of the number of waiting requests, in seconds."""

_LIVES: "dict[JobContext, Live]" = {}


class Live:
    """The live requests and live batches of one process for a job. `boot`: id of the process in the metadata of its
    batches; `calls`: live requests by the names that an abort may use."""

    def __init__(self, job: JobContext) -> None:
        self.boot = uuid.uuid4().hex[:12]
        self.calls: dict[str, list[LiveRequest]] = {}
        self._job = job
        self._pending: list[LiveRequest] = []
        self._batches: list[LiveBatch] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._load: tuple[float, int] = (float("-inf"), 0)

    # ---- for the routes

    def submit(self, requests: list[LiveRequest], named: Mapping[str, list[LiveRequest]]) -> None:
        """Accepts live requests, whose `ended` is set when they end.
        `named`: the requests by the names for an abort."""
        self._job.counts["compatible_requests"] += len(requests)
        for name, of in named.items():
            self.calls.setdefault(name, []).extend(of)
        self._pending += requests
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())

    def forget(self, named: Mapping[str, list[LiveRequest]]) -> None:
        """Removes the names of a call that has ended, so that an abort no longer finds its live requests."""
        for name, requests in named.items():
            gone = set(map(id, requests))
            left = [live_request for live_request in self.calls.get(name, ()) if id(live_request) not in gone]
            if left:
                self.calls[name] = left
            else:
                self.calls.pop(name, None)

    async def cancel(self, requests: Sequence[LiveRequest]) -> int:
        """Ends the unfinished ones of these live requests, with their partial tokens. Returns their number."""
        count = 0
        for live_request in requests:
            if live_request.cancelled or (live_request.ended.done() and not live_request.ended.cancelled()):
                continue
            live_request.cancelled, count = True, count + 1
            if live_request in self._pending:
                self._pending.remove(live_request)
                resolve(live_request, None)
            elif live_request.request_id is not None:
                await self._job.store.end_groups(
                    [live_request.request_id.group], Event.CANCEL, live_request.request_id.index
                )
        return count

    async def cancel_named(self, names: Iterable[str]) -> int:
        """Ends the unfinished live requests with these names; skips unknown names.
        Returns the number of ended requests."""
        return await self.cancel([live_request for name in names for live_request in self.calls.get(name, ())])

    async def cancel_all(self) -> int:
        """Ends all requests of the compatible routes, in all processes. Returns the number of ended requests."""
        unqueued = {
            id(live_request): live_request
            for of in self.calls.values()
            for live_request in of
            if live_request.request_id is None
        }
        count = await self.cancel([*unqueued.values()])
        for record in await self.records():
            count += await self._job.store.end(record.number, Event.CANCEL)
        return count

    async def records(self) -> list[BatchRecord]:
        """Returns the live batches of all processes that serve this job."""
        return [record for record in await self._job.store.batches() if owner(self._job, record)]

    async def unfinished(self) -> int:
        """Returns the number of unfinished requests in the live batches of all processes."""
        return sum(record.progress.requests - record.progress.closed for record in await self.records())

    async def close(self) -> None:
        """Stops the task, resolves pending requests with None, and closes all live batches."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for live_request in self._pending:
            resolve(live_request, None)
        self._pending.clear()
        for batch in self._batches:
            await batch.close()
        self._batches.clear()

    async def check_room(self, count: int) -> None:
        """Raises BusyProblem if `count` more requests would exceed the queue's limit."""
        now = time.monotonic()
        if now - self._load[0] > LOAD_SECONDS:
            load = await self._job.store.load()
            self._load = (now, sum(load.waiting.values()))
        queued, limit = self._load[1] + len(self._pending), self._job.limits.queued
        if queued + count > limit:
            raise BusyProblem(f"{limit} requests wait already; send this again when some have ended")

    # ---- the task that queues

    async def _serve(self) -> None:
        """Runs until no request is pending and all live batches are deleted."""
        while self._pending or self._batches:
            self._wake.clear()
            try:
                await self._round()
            except OpenseerError as error:
                log.warning("%s/%s: %s", self._job.job.namespace, self._job.job.name, error)
            if not self._wake.is_set():
                await _wait(self._wake, ROUND_SECONDS)

    async def _round(self) -> None:
        fleet_spec = (await self._job.snapshot(fresh=bool(self._pending))).fleet_spec
        ready = self._take_ready(fleet_spec)
        if ready:
            try:
                await self._queue(ready, fleet_spec)
            except OpenseerError as error:
                for live_request in ready:
                    resolve(live_request, error)
        for batch in self._batches:
            await batch.maintain(fleet_spec.served)
        self._batches = [batch for batch in self._batches if not batch.gone]
        await self._show_life(fleet_spec.version)

    async def _show_life(self, version: str) -> None:
        """Keeps a recent batch in the store while requests are unfinished: it shows that this process runs."""
        waits = any(batch.waiting for batch in self._batches)
        if waits and self._batches[-1].is_old:
            await self._open(version)
        for batch in self._batches:
            batch.is_sign = waits and batch is self._batches[-1]

    def _take_ready(self, fleet_spec: FleetSpec) -> list[LiveRequest]:
        """Removes and returns the pending requests that may be queued now.
        Requests of a removed adapter end with an error."""
        waiting, self._pending = self._pending, []
        ready: list[LiveRequest] = []
        for live_request in waiting:
            version = _version_of(live_request, fleet_spec)
            if version is None:
                gone = f"model: adapter {live_request.adapter} was removed before this request was queued"
                resolve(live_request, NotFoundProblem(gone))
            elif admits(fleet_spec, version):
                ready.append(live_request)
            else:
                self._pending.append(live_request)
        return ready

    async def _queue(self, requests: list[LiveRequest], fleet_spec: FleetSpec) -> None:
        places: dict[int, tuple[LiveBatch, list[list[LiveRequest]]]] = {}
        for group in by_group(requests):
            version = _version_of(group[0], fleet_spec)
            assert version is not None
            batch = self._joined(group, version) or await self._current(version, fleet_spec)
            places.setdefault(batch.number, (batch, []))[1].append(group)
        for batch, groups in places.values():
            await batch.put(groups)
        # If new weights were committed meanwhile, these requests continue with them, as earlier ones do.
        after = await self._job.store.fleet_spec()
        for batch, _ in places.values():
            following = successor(after, batch.version)
            if batch.version not in after.served and following is not None:
                await self._job.store.change_version(batch.number, following)

    def _joined(self, requests: list[LiveRequest], version: str) -> LiveBatch | None:
        """Returns the batch with a group that takes these live requests; None if there is none."""
        fit = (batch for batch in self._batches if batch.version == version and not (batch.sealed or batch.gone))
        return next((batch for batch in fit if batch.group_for(requests) is not None), None)

    async def _current(self, version: str, fleet_spec: FleetSpec) -> LiveBatch:
        """Returns the batch that takes new groups of a served version; opens one if there is none."""
        for batch in self._batches:
            await batch.maintain(fleet_spec.served)
            if batch.version == version and batch.retired is None and not batch.gone:
                return batch
        return await self._open(version)

    async def _open(self, version: str) -> LiveBatch:
        spec = BatchSpec(weights_version=version, metadata={LIVE: self.boot})
        record, _ = await self._job.store.open_batch(OpenBatch(version, spec.model_dump_json()))
        batch = LiveBatch(self._job, record, version)
        self._batches.append(batch)
        return batch


def _version_of(live_request: LiveRequest, fleet_spec: FleetSpec) -> str | None:
    """Returns the weights version for a request: the fleet's, or its adapter's; None if the adapter is not served."""
    if not live_request.adapter:
        return fleet_spec.version
    adapter = fleet_spec.adapter(live_request.adapter)
    return None if adapter is None else adapter.version


def owner(job: JobContext, record: BatchRecord) -> str:
    """Returns the boot id of the process that owns a live batch; "" for a batch that a trainer opened."""
    return str(job.spec_of(record).metadata.get(LIVE, ""))


def live_of(job: JobContext) -> Live:
    """Returns the job's live requests in this process; the first call creates the object."""
    live = _LIVES.get(job)
    if live is None:
        live = _LIVES[job] = Live(job)
        job.closing.append(lambda: _end(job))
    return live


def boot_of(job: JobContext) -> str:
    """Returns the boot id in this process's live batches; "" before the first call of `live_of`."""
    return _LIVES[job].boot if job in _LIVES else ""


async def _end(job: JobContext) -> None:
    await _LIVES.pop(job).close()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
