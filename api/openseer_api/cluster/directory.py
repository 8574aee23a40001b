"""The gateway's open jobs: each is opened when it is first requested or listed, and closed when it no longer serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from openseer_api.cluster.jobs import KubeJobs, ServedJob
from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import RolloutJob

SYNC_SECONDS = 15.0
"""Interval between two listings of the jobs, in seconds."""
UNWANTED_SECONDS = 1.0
"""Interval, in seconds, at which `watch` checks whether the jobs are wanted again."""
OPENED_AT_ONCE = 16
"""Limit of jobs that a sync opens concurrently. A store that does not respond occupies a place until its timeout."""

OPENING = "its store has not answered yet"

log = logging.getLogger(__name__)

C = TypeVar("C")
Key = tuple[str, str]


@dataclass(slots=True)
class _Open(Generic[C]):
    """A job that is open or being opened. `uid`: of its Kubernetes object; `url`: of its store, "" until it is known.
    `task`: opens the job and returns its context."""

    uid: str
    url: str = ""
    task: asyncio.Task[C] = field(init=False)


class KubeDirectory(Generic[C]):
    """The open jobs. `open_job` creates a context from a job and its store's URL; `close_job` closes a context;
    `renew_job` passes the present manifest to it; `is_troubled` returns whether its store fails."""

    def __init__(
        self,
        jobs: KubeJobs,
        open_job: Callable[[RolloutJob, str], Awaitable[C]],
        close_job: Callable[[C], Awaitable[None]],
        renew_job: Callable[[C, RolloutJob], None] = lambda _context, _job: None,
        is_troubled: Callable[[C], bool] = lambda _context: False,
    ) -> None:
        self._jobs = jobs
        self._open_job = open_job
        self._close_job = close_job
        self._renew_job = renew_job
        self._is_troubled = is_troubled
        self._open: dict[Key, _Open[C]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._unopened: dict[Key, tuple[RolloutJob, str]] = {}
        self.synced = False
        """Whether the jobs have been listed successfully at least once."""

    def __len__(self) -> int:
        return len(self._open)

    def opened(self) -> list[C]:
        """Returns the contexts of the open jobs, sorted by namespace and name. Any thread may call it."""
        tasks = [entry.task for _, entry in sorted(self._open.items(), key=lambda one: one[0])]
        return [task.result() for task in tasks if task.done() and not task.cancelled() and task.exception() is None]

    def unopened(self) -> list[tuple[RolloutJob, str]]:
        """Returns the jobs that should be open but are not, each with the reason, sorted by namespace and name."""
        opened = {key for key, entry in self._open.items() if entry.task.done()}
        return [why for key, why in sorted(self._unopened.items(), key=lambda one: one[0]) if key not in opened]

    async def find(self, namespace: str, name: str) -> C | None:
        """Returns the job's context; None if no such job serves. Raises JobsUnavailable and StoreUnavailableError."""
        served = await self._jobs.find(namespace, name)
        if served is None:
            self._drop((namespace, name))
            return None
        return await self._context(served)

    async def watch(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Runs until cancelled: opens the jobs that serve, so that batches proceed while no trainer is connected, and
        closes the jobs that have ended. While `wanted` returns False, all jobs are closed."""
        while True:
            if not wanted():
                await self.close()
                await asyncio.sleep(UNWANTED_SECONDS)
                continue
            try:
                await self.sync()
            except OpenseerError as error:
                log.warning("%s", error)
            await asyncio.sleep(SYNC_SECONDS)

    async def sync(self) -> None:
        """Lists the jobs once: closes those that have ended, opens the others except suspended ones. The next sync
        retries a job that cannot be opened. Raises JobsUnavailable."""
        found = [served async for served in self._jobs.all()]
        self.synced = True
        uids = {served.key: served.uid for served in found}
        for key, opened in list(self._open.items()):
            if uids.get(key) != opened.uid:
                self._drop(key)
        awake = [served for served in found if not served.job.spec.suspend]
        self._unopened = {one.key: (one.job, self._unopened.get(one.key, ("", OPENING))[1]) for one in awake}
        gate = asyncio.Semaphore(OPENED_AT_ONCE)
        await asyncio.gather(*(self._try(served, gate) for served in awake))

    async def close(self) -> None:
        """Closes all jobs, and waits until they are closed."""
        self._unopened = {}
        for key in list(self._open):
            self._drop(key)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _try(self, served: ServedJob, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                await self._drop_moved(served)
                await self._context(served)
                self._unopened.pop(served.key, None)
            except OpenseerError as error:
                log.info("%s/%s: %s", *served.key, error)
                self._unopened[served.key] = served.job, str(error)
            except Exception:  # one job that cannot be opened must not prevent the others
                log.exception("%s/%s: cannot be opened", *served.key)
                self._unopened[served.key] = served.job, "a defect of openseer; see the log of this server"

    async def _context(self, served: ServedJob) -> C:
        known = self._open.get(served.key)
        if known is not None and known.uid != served.uid:
            self._drop(served.key)
            known = None
        if known is None:
            known = self._open[served.key] = _Open[C](served.uid)
            known.task = asyncio.create_task(self._begin(served, known))
        # One waiting caller may be cancelled; the others still need the result.
        context = await asyncio.shield(known.task)
        self._renew_job(context, served.job)
        return context

    async def _drop_moved(self, served: ServedJob) -> None:
        """Closes a job whose store fails and has another URL than at the opening (a new password or address)."""
        known = self._open.get(served.key)
        if known is None or not known.task.done() or not self._is_troubled(known.task.result()):
            return
        if await self._jobs.store_url(served) != known.url and self._open.get(served.key) is known:
            self._drop(served.key)

    async def _begin(self, served: ServedJob, entry: _Open[C]) -> C:
        try:
            entry.url = await self._jobs.store_url(served)
            return await self._open_job(served.job, entry.url)
        except BaseException:
            if self._open.get(served.key) is entry:
                del self._open[served.key]
            raise

    def _drop(self, key: Key) -> None:
        """Closes a job in the background; requests in progress fail."""
        opened = self._open.pop(key, None)
        if opened is not None:
            task = asyncio.create_task(self._end(opened))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, opened: _Open[C]) -> None:
        try:
            context = await opened.task
        except (OpenseerError, asyncio.CancelledError):
            return
        await self._close_job(context)
