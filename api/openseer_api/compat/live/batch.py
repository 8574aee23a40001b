"""A batch that carries requests of the compatible routes: one process writes it, one task reads it, then it is gone."""

import asyncio
import logging
import time

from openseer_api.compat.live.groups import YOUNG_SECONDS, LiveGroup, Names, first_spec, grown_spec
from openseer_api.compat.live.members import LiveRequest, tell
from openseer_api.compat.live.refusals import LostError
from openseer_api.job.context import JobContext
from openseer_api.job.history import with_earlier
from openseer_core.errors import OpenseerError
from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.messages import Result
from openseer_core.queue.states import Event
from openseer_core.wire.batches import MAX_GROUP_SIZE

log = logging.getLogger(__name__)

GROUPS = 256
"""Groups of one live batch; then there is another, so that what is delivered can go."""
BATCH_SECONDS = 60.0
"""A process that has live batches opens a fresh one at least so often: that is how others see that it lives."""
IDLE_SECONDS = 5.0
"""A live batch that nobody has waited for so long is closed."""
WAIT_SECONDS = 1.0
PAGE = 256
TROUBLE_SECONDS = 1.0
"""After a read that failed."""

_Likeness = tuple[str, bytes, str]


class LiveBatch:
    """`retired`: since when it takes no new groups (monotonic); `waiting`: who is to be told of which request."""

    def __init__(self, job: JobContext, number: int, version: str) -> None:
        self.number = number
        self.version = version
        self.opened = self._used = time.monotonic()
        self.retired: float | None = None
        self.sealed = self.gone = False
        self.waiting: dict[RequestId, LiveRequest] = {}
        self._job = job
        self._groups: dict[_Likeness, LiveGroup] = {}
        self._names = Names()
        self._count = 0
        self._reader = asyncio.create_task(self._read())

    # ---- writing, by one task alone

    def group_for(self, members: list[LiveRequest]) -> LiveGroup | None:
        """The group that takes these members, which are all alike."""
        group = self._groups.get(members[0].likeness)
        return group if group is not None and group.takes(time.monotonic(), len(members)) else None

    async def put(self, groups: list[list[LiveRequest]]) -> None:
        """Queues members; each list is one group, or joins one. Raises OpenseerError; then nobody waits here."""
        self._used = time.monotonic()
        try:
            await self._write(groups)
        except OpenseerError:
            self._withdraw(groups)
            raise
        for members in groups:
            await self._end_dropped(members)

    async def _write(self, groups: list[list[LiveRequest]]) -> None:
        now = await self._job.store.now()
        fresh: list[LiveGroup] = []
        for members in groups:
            group = self.group_for(members)
            if group is None:
                fresh.append(self._begin(members, now))
            else:
                await self._grow(group, members)
        if fresh:
            specs = await with_earlier(self._job, [group.spec for group in fresh])
            for group, spec in zip(fresh, specs, strict=True):
                group.spec = spec
            await self._job.store.submit(specs)

    def _withdraw(self, groups: list[list[LiveRequest]]) -> None:
        """How far a write came that failed is not known: such a group gets no further members."""
        for members in groups:
            self._groups.pop(members[0].likeness, None)
            for member in members:
                if member.request is not None:
                    self.waiting.pop(member.request, None)

    def _begin(self, members: list[LiveRequest], now: float) -> LiveGroup:
        first = members[0]
        gid = GroupId(self.number, self._names.fresh(first.name))
        spec = first_spec(self._job, gid, self.version, self._count, members, now)
        self._count += 1
        group = self._groups[first.likeness] = LiveGroup(spec, time.monotonic(), bool(first.name))
        self._expect(group, members, 0)
        return group

    async def _grow(self, group: LiveGroup, members: list[LiveRequest]) -> None:
        present = group.spec.size
        group.spec = grown_spec(self._job, group.spec, members)
        self._expect(group, members, present)
        await self._job.store.grow(group.spec, present)

    def _expect(self, group: LiveGroup, members: list[LiveRequest], present: int) -> None:
        for index, member in enumerate(members, present):
            member.request = RequestId(group.spec.id, index)
            self.waiting[member.request] = member
        counts, told = self._job.counts, sum(member.told for member in members)
        recognised = len(members) - told
        if group.spec.size == 1 and recognised:
            group.lone, recognised = True, 0
        elif group.lone:
            group.lone, recognised = False, recognised + 1
        counts["compatible_grouped"] += told + recognised
        counts["compatible_recognised"] += recognised

    async def _end_dropped(self, members: list[LiveRequest]) -> None:
        """Those whose client left while they were being queued."""
        for member in members:
            if member.dropped and member.request is not None:
                await self._job.store.end_groups([member.request.group], Event.CANCEL, member.request.index)

    async def tend(self, version: str) -> None:
        """Takes no new groups once it is full, old or of another version; is sealed when its groups are grown up."""
        now = time.monotonic()
        idle = not self.waiting and now - self._used > IDLE_SECONDS
        if self.retired is None and (
            idle or self.version != version or self._count >= GROUPS or now - self.opened > BATCH_SECONDS
        ):
            self.retired = now
        if self.retired is not None and not self.sealed and (not self.waiting or now - self.retired > YOUNG_SECONDS):
            self.sealed = True
            await self._job.store.seal(self.number)

    async def close(self) -> None:
        """Stops reading; whoever waits is told so, and what nobody waits for any more goes."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._lose("the server is closing")
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
                self._deliver(entry)
        if entries:
            return entries[-1].cursor
        record = await store.batch(self.number)
        if record is None or record.forgotten:
            self._lose("its batch was deleted")
            self.gone = True
        elif self.sealed and record.progress.complete and cursor >= record.progress.entries:
            await store.acknowledge(self.number, cursor)
            await store.forget(self.number)
            self.gone = True
        return cursor

    def _deliver(self, result: Result) -> None:
        self._used = time.monotonic()
        member = self.waiting.pop(result.request, None)
        if member is not None:
            tell(member, result)

    def _lose(self, why: str) -> None:
        for request, member in self.waiting.items():
            tell(member, LostError(f"request {request} is lost: {why}; send it again"))
        self.waiting.clear()


def alike(members: list[LiveRequest]) -> list[list[LiveRequest]]:
    """Members by group, none too large for one."""
    found: dict[_Likeness, list[LiveRequest]] = {}
    for member in members:
        found.setdefault(member.likeness, []).append(member)
    return [
        together[start : start + MAX_GROUP_SIZE]
        for together in found.values()
        for start in range(0, len(together), MAX_GROUP_SIZE)
    ]
