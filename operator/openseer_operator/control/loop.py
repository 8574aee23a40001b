"""When each job is looked at: a queue without duplicates, one look per job at a time, back-off, and a timer each."""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable

from openseer_core.errors import OpenseerError
from openseer_operator.objects.reading import Key

LOOKS_AT_ONCE = 16
"""Jobs that are looked at at the same time; a look waits for the API server most of its time."""
NEW_AT_ONCE = 4
"""Of these, new jobs. Each wants all its objects made, many at a time: with more jobs at once the API server makes no
more objects, but each job waits longer for its own."""
LOOK_SECONDS = 120.0
"""A look that takes longer is given up and repeated."""
FIRST_BACKOFF_SECONDS = 0.5
MOST_BACKOFF_SECONDS = 60.0
SLACK = 64
"""Outdated timers tolerated before they are cleared away."""

log = logging.getLogger(__name__)

Look = Callable[[Key], Awaitable[float | None]]
"""Looks at one job; returns in how many seconds to look again even if nothing happens, None: not at all."""
Told = Callable[[float, float, bool], None]
"""Hears of every look: the seconds that the job waited for it, its own seconds, and whether it failed."""

IsNew = Callable[[Key], bool]
"""Whether nothing was done for the job yet."""


class Loop:
    """Nothing that happens to one job costs time that grows with the number of jobs."""

    def __init__(self, look: Look, told: Told, is_new: IsNew = lambda _: False) -> None:
        self._look = look
        self._told = told
        self._is_new = is_new
        self._waiting: dict[Key, float] = {}  # in order of arrival, and since when
        self._new: dict[Key, float] = {}  # the same, of new jobs
        self._new_running: set[Key] = set()
        self._running: dict[Key, float] = {}
        self._again: dict[Key, float] = {}  # asked for while a look runs
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, Key]] = []
        self._arrived = asyncio.Event()
        self._sooner = asyncio.Event()  # another timer became the earliest
        self._stopping = False

    # ---- what others ask

    def add(self, key: Key) -> None:
        """Asks for a look as soon as may be."""
        if key in self._running:
            self._again.setdefault(key, time.monotonic())
        else:
            self._queue(key).setdefault(key, time.monotonic())
            self._arrived.set()

    def forget(self, key: Key) -> None:
        """The job is gone; only what is asked for from now on counts."""
        for asked in (self._waiting, self._new, self._again, self._due):
            asked.pop(key, None)
        self._failures.pop(key, None)

    @property
    def depth(self) -> int:
        """Jobs that wait for a look."""
        return len(self._waiting) + len(self._new)

    @property
    def lag(self) -> float:
        """Seconds that the oldest wait, or the longest look, has lasted."""
        now = time.monotonic()
        oldest = (next(iter(queue.values()), now) for queue in (self._waiting, self._new))
        return now - min(*oldest, *list(self._running.values()), now)

    @property
    def timers(self) -> int:
        """Timers that are kept, outdated ones included."""
        return len(self._timers)

    # ---- running

    async def run(self) -> None:
        """Until `stop`: looks and timers."""
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(self._ring())
            lookers = [group.create_task(self._work()) for _ in range(LOOKS_AT_ONCE)]
            await asyncio.wait(lookers)
            timers.cancel()

    def stop(self) -> None:
        """No look begins any more; `run` returns when those that run are over."""
        self._stopping = True
        self._arrived.set()

    async def _work(self) -> None:
        while not self._stopping:
            queue = self._waiting or (self._new if len(self._new_running) < NEW_AT_ONCE else None)
            if not queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            key = next(iter(queue))
            if queue is self._new:
                self._new_running.add(key)
            await self._one(key, queue.pop(key))
            if key in self._new_running:
                self._new_running.discard(key)
                self._arrived.set()

    def _queue(self, key: Key) -> dict[Key, float]:
        """Jobs that run come before those that are still to begin, however many of these come at once."""
        return self._new if self._is_new(key) else self._waiting

    async def _one(self, key: Key, asked_at: float) -> None:
        self._running[key] = start = time.monotonic()
        self._due.pop(key, None)
        failed = True
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                delay = await self._look(key)
            failed = False
            self._failures.pop(key, None)
        except (OpenseerError, TimeoutError) as error:
            delay = self._backoff(key)
            log.warning("%s/%s: %s; again in %.1f s", *key, str(error) or "no answer in time", delay)
        except Exception:  # one job that cannot be handled must not take the others along
            delay = self._backoff(key)
            log.exception("%s/%s: this look failed; again in %.1f s", *key, delay)
        finally:
            del self._running[key]
            self._told(start - asked_at, time.monotonic() - start, failed)
        asked = self._again.pop(key, None)
        if asked is not None and not failed:
            self._queue(key)[key] = asked
            self._arrived.set()
        elif delay is not None:
            self._set(key, delay)

    def _backoff(self, key: Key) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        most = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(count - 1, 30), MOST_BACKOFF_SECONDS)
        return most * random.uniform(0.5, 1.0)

    # ---- timers

    def _set(self, key: Key, delay: float) -> None:
        at = self._due[key] = time.monotonic() + max(0.0, delay)
        heapq.heappush(self._timers, (at, key))
        if len(self._timers) > 2 * len(self._due) + SLACK:
            self._timers = [(at, key) for key, at in self._due.items()]
            heapq.heapify(self._timers)
        if self._timers[0] == (at, key):
            self._sooner.set()

    async def _ring(self) -> None:
        while True:
            self._sooner.clear()
            while self._timers and (self._timers[0][0] <= time.monotonic() or self._outdated()):
                at, key = heapq.heappop(self._timers)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add(key)
            pause = self._timers[0][0] - time.monotonic() if self._timers else None
            try:
                async with asyncio.timeout(pause):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    def _outdated(self) -> bool:
        at, key = self._timers[0]
        return self._due.get(key) != at
