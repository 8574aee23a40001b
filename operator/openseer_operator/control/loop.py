"""Schedules reconcile steps: a queue without duplicates, one step per job at a time, back-off, and timers."""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable

from openseer_core.errors import OpenseerError
from openseer_operator.objects.reading import JobKey

CONCURRENT_RECONCILES = 16
"""Limit of concurrent reconcile steps; a step spends most of its time waiting for the API server."""
CONCURRENT_NEW = 4
"""Limit of new jobs among these. The creation of a new job's objects saturates the API server: more new jobs at once
would only make each of them wait longer."""
RECONCILE_SECONDS = 120.0
"""Timeout of a reconcile step, in seconds; the loop cancels a longer step and repeats it."""
FIRST_BACKOFF_SECONDS = 0.5
"""Longest pause after a job's first failed step, in seconds; it doubles with each further failed step."""
MOST_BACKOFF_SECONDS = 60.0
"""Limit of that pause, in seconds."""
SLACK = 64
"""Outdated timers are removed once they exceed the valid ones by more than this number."""

log = logging.getLogger(__name__)

Reconcile = Callable[[JobKey], Awaitable[float | None]]
"""Reconciles one job. Returns the seconds until its next step if nothing changes; None if no step is due then."""
ReportReconcile = Callable[[float, float, bool], None]
"""Called after every reconcile step with the job's wait and the step's duration, in seconds, and whether it failed."""

IsNew = Callable[[JobKey], bool]
"""Whether the job is new: no reconcile step has written its status yet."""


class Loop:
    """The queue of jobs. The cost of an operation on one job does not grow with the number of jobs."""

    def __init__(
        self,
        reconcile: Reconcile,
        report: ReportReconcile,
        is_new: IsNew = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: returns monotonic seconds on the clock of the event loop."""
        self._now = clock
        self._reconcile = reconcile
        self._report = report
        self._is_new = is_new
        self._waiting: dict[JobKey, float] = {}  # time of the request, in order of arrival
        self._new: dict[JobKey, float] = {}  # the same for new jobs
        self._new_running: set[JobKey] = set()
        self._running: dict[JobKey, float] = {}
        self._requested: dict[JobKey, float] = {}  # time of a request while the job's step runs
        self._failures: dict[JobKey, int] = {}
        self._due: dict[JobKey, float] = {}
        self._timers: list[tuple[float, JobKey]] = []
        self._arrived = asyncio.Event()
        self._sooner = asyncio.Event()  # another timer became the earliest
        self._stopping = False

    # ---- requests

    def add(self, key: JobKey) -> None:
        """Requests a reconcile step as soon as possible."""
        if key in self._running:
            self._requested.setdefault(key, self._now())
        else:
            self._queue(key).setdefault(key, self._now())
            self._arrived.set()

    def forget(self, key: JobKey) -> None:
        """Drops all requests and timers of a deleted job. A later `add` queues the job again."""
        for times in (self._waiting, self._new, self._requested, self._due):
            times.pop(key, None)
        self._failures.pop(key, None)

    @property
    def depth(self) -> int:
        """Number of jobs that wait for a reconcile step."""
        return len(self._waiting) + len(self._new)

    @property
    def lag(self) -> float:
        """Duration of the longest present wait or step, in seconds."""
        now = self._now()
        oldest = (next(iter(queue.values()), now) for queue in (self._waiting, self._new))
        return now - min(*oldest, *list(self._running.values()), now)

    @property
    def timers(self) -> int:
        """Number of timers, outdated ones included."""
        return len(self._timers)

    # ---- running

    async def run(self) -> None:
        """Runs reconcile steps and timers until `stop`."""
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(self._run_timers())
            workers = [group.create_task(self._run_worker()) for _ in range(CONCURRENT_RECONCILES)]
            await asyncio.wait(workers)
            timers.cancel()

    def stop(self) -> None:
        """Begins no further step; `run` returns after the running steps."""
        self._stopping = True
        self._arrived.set()

    async def _run_worker(self) -> None:
        while not self._stopping:
            queue = self._waiting or (self._new if len(self._new_running) < CONCURRENT_NEW else None)
            if not queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            key = next(iter(queue))
            if queue is self._new:
                self._new_running.add(key)
            await self._run_job(key, queue.pop(key))
            if key in self._new_running:
                self._new_running.discard(key)
                self._arrived.set()

    def _queue(self, key: JobKey) -> dict[JobKey, float]:
        """The job's queue. New jobs have a queue of their own, which is served only while the other one is empty."""
        return self._new if self._is_new(key) else self._waiting

    async def _run_job(self, key: JobKey, requested_at: float) -> None:
        self._running[key] = start = self._now()
        self._due.pop(key, None)
        failed = True
        try:
            async with asyncio.timeout(RECONCILE_SECONDS):
                delay = await self._reconcile(key)
            failed = False
            self._failures.pop(key, None)
        except (OpenseerError, TimeoutError) as error:
            delay = self._backoff(key)
            log.warning("%s/%s: %s; again in %.1f s", *key, str(error) or "no answer in time", delay)
        except Exception:  # an error in one job must not stop the other jobs
            delay = self._backoff(key)
            log.exception("%s/%s: this reconcile step failed; again in %.1f s", *key, delay)
        finally:
            del self._running[key]
            self._report(start - requested_at, self._now() - start, failed)
        requested = self._requested.pop(key, None)
        if requested is not None and not failed:
            self._queue(key)[key] = requested
            self._arrived.set()
        elif delay is not None:
            self._set_timer(key, delay)

    def _backoff(self, key: JobKey) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        most = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(count - 1, 30), MOST_BACKOFF_SECONDS)
        return most * random.uniform(0.5, 1.0)

    # ---- timers

    def _set_timer(self, key: JobKey, delay: float) -> None:
        at = self._due[key] = self._now() + max(0.0, delay)
        heapq.heappush(self._timers, (at, key))
        if len(self._timers) > 2 * len(self._due) + SLACK:
            self._timers = [(at, key) for key, at in self._due.items()]
            heapq.heapify(self._timers)
        if self._timers[0] == (at, key):
            self._sooner.set()

    async def _run_timers(self) -> None:
        while True:
            self._sooner.clear()
            while self._timers and (self._timers[0][0] <= self._now() or self._first_is_outdated()):
                at, key = heapq.heappop(self._timers)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add(key)
            pause = self._timers[0][0] - self._now() if self._timers else None
            try:
                async with asyncio.timeout(pause):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    def _first_is_outdated(self) -> bool:
        at, key = self._timers[0]
        return self._due.get(key) != at
