"""The gateway's open jobs: each is opened when it is first asked for, or found to serve, and closed when it is gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from openseer_api.cluster.jobs import KubeJobs, ServedJob
from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import RolloutJob

TEND_SECONDS = 15.0
"""Between two looks for jobs that came or went."""
OPENED_AT_ONCE = 16
"""Jobs that one such look opens at the same time; stores that do not answer take their time."""

log = logging.getLogger(__name__)

C = TypeVar("C")
Key = tuple[str, str]


@dataclass(slots=True)
class _Open(Generic[C]):
    """A job that is open, or about to be. `uid`: of the object it was opened for."""

    uid: str
    task: asyncio.Task[C]


class KubeDirectory(Generic[C]):
    """`opened` makes of a job and its store's URL what requests work with; `closed` takes it down; `renewed` hears of a
    manifest that changed."""

    def __init__(
        self,
        jobs: KubeJobs,
        opened: Callable[[RolloutJob, str], Awaitable[C]],
        closed: Callable[[C], Awaitable[None]],
        renewed: Callable[[C, RolloutJob], None] = lambda _context, _job: None,
    ) -> None:
        self._jobs = jobs
        self._opened = opened
        self._closed = closed
        self._renewed = renewed
        self._open: dict[Key, _Open[C]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.tended = False
        """Whether jobs could be looked for once."""

    def __len__(self) -> int:
        return len(self._open)

    async def find(self, namespace: str, name: str) -> C | None:
        """The job's context, None where no such job serves. Raises JobsUnavailable and StoreUnavailableError."""
        served = await self._jobs.find(namespace, name)
        if served is None:
            self._drop((namespace, name))
            return None
        return await self._context(served)

    async def tend(self) -> None:
        """For ever: opens jobs that serve, so that what a trainer began goes on without it, and closes those gone."""
        while True:
            try:
                await self.tend_once()
            except OpenseerError as error:
                log.warning("%s", error)
            await asyncio.sleep(TEND_SECONDS)

    async def tend_once(self) -> None:
        """One look. Raises JobsUnavailable; a job that cannot be opened is left for the next look."""
        found = [served async for served in self._jobs.all()]
        self.tended = True
        uids = {served.key: served.uid for served in found}
        for key, one in list(self._open.items()):
            if uids.get(key) != one.uid:
                self._drop(key)
        gate = asyncio.Semaphore(OPENED_AT_ONCE)
        await asyncio.gather(*(self._try(served, gate) for served in found if not served.job.spec.suspend))

    async def close(self) -> None:
        """Closes all of them."""
        for key in list(self._open):
            self._drop(key)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _try(self, served: ServedJob, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                await self._context(served)
            except OpenseerError as error:
                log.info("%s/%s: %s", *served.key, error)
            except Exception:  # one job that cannot be opened must not take the others along
                log.exception("%s/%s: cannot be opened", *served.key)

    async def _context(self, served: ServedJob) -> C:
        known = self._open.get(served.key)
        if known is not None and known.uid != served.uid:
            self._drop(served.key)
            known = None
        if known is None:
            known = self._open[served.key] = _Open(served.uid, asyncio.create_task(self._begin(served)))
        # One of those who wait may go away; the others still want it.
        context = await asyncio.shield(known.task)
        self._renewed(context, served.job)
        return context

    async def _begin(self, served: ServedJob) -> C:
        try:
            return await self._opened(served.job, await self._jobs.store_url(served))
        except BaseException:
            held = self._open.get(served.key)
            if held is not None and held.task is asyncio.current_task():
                del self._open[served.key]
            raise

    def _drop(self, key: Key) -> None:
        """Requests under way see their store closed."""
        one = self._open.pop(key, None)
        if one is not None:
            task = asyncio.create_task(self._end(one))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, one: _Open[C]) -> None:
        try:
            context = await one.task
        except (OpenseerError, asyncio.CancelledError):
            return
        await self._closed(context)
