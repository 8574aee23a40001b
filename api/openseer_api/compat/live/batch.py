"""A live batch of requests of the compatible routes: one process writes it, reads its results and deletes it."""

import asyncio
import logging
import time
from collections.abc import Collection

from openseer_api.compat.live.groups import JOIN_SECONDS, LiveGroup, Names, first_spec, grown_spec
from openseer_api.compat.live.live_request import LiveRequest, resolve
from openseer_api.compat.live.refusals import LostError
from openseer_api.job.context import JobContext
from openseer_api.job.history import with_earlier
from openseer_api.job.rows import RowsUnavailable, rows_of
from openseer_core.errors import OpenseerError
from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.messages import Result
from openseer_core.queue.states import Event
from openseer_core.wire.batches import MAX_GROUP_SIZE

log = logging.getLogger(__name__)

GROUPS = 256
"""Limit of groups of one live batch. A full batch is replaced, so that delivered results can be deleted."""
BATCH_SECONDS = 60.0
"""Age, in seconds, after which a live batch takes no new groups. While a process has unfinished requests, it opens a
batch at this interval, even an empty one, so that other processes see that it runs (orphans.py)."""
IDLE_SECONDS = 5.0
"""Time without unfinished requests, in seconds, after which a live batch takes no new groups."""
WAIT_SECONDS = 1.0
"""Longest wait of one read of results, in seconds."""
PAGE = 256
"""Limit of results in one read."""
TROUBLE_SECONDS = 1.0
"""Wait after a failed read, in seconds."""

_GroupKey = tuple[str, bytes, str, str]


class LiveBatch:
    """One live batch. `retired`: monotonic time from which it takes no new groups, None before; `waiting`: its
    unfinished live requests, by id; `gone`: its data are deleted; `is_sign`: it is the newest batch of a process with
    unfinished requests, so it is not deleted until a newer one exists."""

    def __init__(self, job: JobContext, record: BatchRecord, version: str) -> None:
        self.number = record.number
        self._ordinal, self._opened_at = record.ordinal, record.opened_at
        self.version = version
        self.opened = self._used = time.monotonic()
        self.retired: float | None = None
        self.sealed = self.gone = self.is_sign = False
        self.waiting: dict[RequestId, LiveRequest] = {}
        self._job = job
        self._groups: dict[_GroupKey, LiveGroup] = {}
        self._names = Names()
        self._count = 0
        self._reader = asyncio.create_task(self._read())

    @property
    def is_old(self) -> bool:
        """Whether the batch was opened more than BATCH_SECONDS ago."""
        return time.monotonic() - self.opened > BATCH_SECONDS

    # ---- writing, by one task only

    def group_for(self, requests: list[LiveRequest]) -> LiveGroup | None:
        """Returns the group that takes these live requests, which all have the same group key;
        None if there is none."""
        group = self._groups.get(requests[0].group_key)
        return group if group is not None and group.takes(time.monotonic(), len(requests)) else None

    async def put(self, groups: list[list[LiveRequest]]) -> None:
        """Queues live requests; the requests of each list join one group.
        Raises OpenseerError, and then forgets all."""
        self._used = time.monotonic()
        try:
            await self._write(groups)
        except OpenseerError:
            self._withdraw(groups)
            raise
        for requests in groups:
            await self._end_cancelled(requests)

    async def _write(self, groups: list[list[LiveRequest]]) -> None:
        now = await self._job.store.now()
        fresh: list[LiveGroup] = []
        for requests in groups:
            group = self.group_for(requests)
            if group is None:
                fresh.append(self._begin(requests, now))
            else:
                await self._grow(group, requests)
        if fresh:
            specs = await with_earlier(self._job, [group.spec for group in fresh])
            for group, spec in zip(fresh, specs, strict=True):
                group.spec = spec
            await self._job.store.submit(specs)

    def _withdraw(self, groups: list[list[LiveRequest]]) -> None:
        """Forgets the live requests and groups of a failed write, because a part of it may have succeeded."""
        for requests in groups:
            self._groups.pop(requests[0].group_key, None)
            for live_request in requests:
                if live_request.request_id is not None:
                    self.waiting.pop(live_request.request_id, None)

    def _begin(self, requests: list[LiveRequest], now: float) -> LiveGroup:
        first = requests[0]
        gid = GroupId(self.number, self._names.fresh(first.name))
        spec = first_spec(self._job, gid, self.version, (self._ordinal, self._count), requests, now)
        self._count += 1
        group = self._groups[first.group_key] = LiveGroup(spec, time.monotonic(), bool(first.name))
        self._register(group, requests, 0)
        return group

    async def _grow(self, group: LiveGroup, requests: list[LiveRequest]) -> None:
        present = group.spec.size
        group.spec = grown_spec(self._job, group.spec, requests)
        self._register(group, requests, present)
        await self._job.store.grow(group.spec, present)

    def _register(self, group: LiveGroup, requests: list[LiveRequest], present: int) -> None:
        for index, live_request in enumerate(requests, present):
            live_request.request_id = RequestId(group.spec.id, index)
            self.waiting[live_request.request_id] = live_request
        counts, explicit = self._job.counts, sum(live_request.explicit_group for live_request in requests)
        recognised = len(requests) - explicit
        if group.spec.size == 1 and recognised:
            group.lone, recognised = True, 0
        elif group.lone:
            group.lone, recognised = False, recognised + 1
        counts["compatible_grouped"] += explicit + recognised
        counts["compatible_recognised"] += recognised

    async def _end_cancelled(self, requests: list[LiveRequest]) -> None:
        """Ends the requests that were cancelled while they were being queued."""
        for live_request in requests:
            if live_request.cancelled and live_request.request_id is not None:
                await self._job.store.end_groups(
                    [live_request.request_id.group], Event.CANCEL, live_request.request_id.index
                )

    async def maintain(self, served: Collection[str]) -> None:
        """Retires the batch if it is full, old, idle, or its version is not in `served`;
        seals it once no group may grow."""
        now = time.monotonic()
        idle = not self.waiting and now - self._used > IDLE_SECONDS
        if self.retired is None and (idle or self.version not in served or self._count >= GROUPS or self.is_old):
            self.retired = now
        if self.retired is not None and not self.sealed and (not self.waiting or now - self.retired > JOIN_SECONDS):
            self.sealed = True
            await self._job.store.seal(self.number)

    async def close(self) -> None:
        """Stops reading, fails the waiting requests with LostError, and deletes the batch."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._fail_all("the server is closing")
        try:
            await self._job.store.forget(self.number)
        except OpenseerError as error:
            log.warning("live batch %s stays until another process deletes it: %s", self.number, error)

    # ---- reading

    async def _read(self) -> None:
        cursor = 0
        while not self.gone:
            try:
                cursor = await self._step(cursor)
            except OpenseerError as error:
                log.warning("live batch %s: %s", self.number, error)
                await asyncio.sleep(TROUBLE_SECONDS)

    async def _step(self, cursor: int) -> int:
        store = self._job.store
        entries = await store.results(self.number, cursor, PAGE, WAIT_SECONDS)
        for entry in entries:
            if isinstance(entry, Result):
                await self._deliver(entry)
        if entries:
            return entries[-1].cursor
        record = await store.batch(self.number)
        if record is None or record.forgotten:
            self._fail_all("its batch was deleted")
            self.gone = True
        elif self.sealed and record.progress.complete and cursor >= record.progress.entries and not self.is_sign:
            await store.acknowledge(self.number, cursor)
            await store.forget(self.number)
            self.gone = True
        return cursor

    async def _deliver(self, result: Result) -> None:
        self._used = time.monotonic()
        live_request = self.waiting.get(result.request)
        if self._job.traces is not None:
            caller = live_request.caller if live_request is not None else None
            self._job.traces.note_live(self.number, self._opened_at, result, caller)
        if live_request is None:
            return
        try:  # rows are read now, because they are deleted with the batch
            live_request.routed = await rows_of(self._job.rows, result)
            resolve(live_request, result)
        except RowsUnavailable as error:
            resolve(live_request, error)
        self.waiting.pop(result.request, None)

    def _fail_all(self, why: str) -> None:
        for request, live_request in self.waiting.items():
            resolve(live_request, LostError(f"request {request} is lost: {why}; send it again"))
        self.waiting.clear()


def by_group(requests: list[LiveRequest]) -> list[list[LiveRequest]]:
    """Returns the live requests as lists with one group key each, of at most MAX_GROUP_SIZE."""
    found: dict[_GroupKey, list[LiveRequest]] = {}
    for live_request in requests:
        found.setdefault(live_request.group_key, []).append(live_request)
    return [
        group[start : start + MAX_GROUP_SIZE]
        for group in found.values()
        for start in range(0, len(group), MAX_GROUP_SIZE)
    ]
