"""Divides the workers' time of a running job into parts, from its journals and heartbeats as they arrive."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from openseer_api.page.book import WORDS, BatchBook, LeaseBar
from openseer_core.explain.counters import CounterSums
from openseer_core.explain.findings import Account, large_parts, named, slow_workers
from openseer_core.explain.paces import WorkerGrowth, WorkerPace, compared
from openseer_core.explain.parts import (
    BOOT,
    LEASES,
    LOST,
    PART_LABELS,
    PART_NAMES,
    STOCKED,
    SUBMITTED,
    WAITING,
    PartName,
    WorkerParts,
    divide,
)
from openseer_core.ids import RequestId
from openseer_core.manifest.generation import JobMode
from openseer_core.queue.messages import JournalEntry
from openseer_core.wire.page import MOST_FINDINGS, Explained, PartOfTime, StandsOut
from openseer_core.worker.context_metrics import ContextCounts
from openseer_core.worker.heartbeat import WorkerState, WorkerStatus
from openseer_core.worker.time_metrics import WorkerSeconds

ENOUGH_SECONDS = 30.0
"""Shortest time of an account, in seconds, whose parts give findings; in a shorter one the job's start dominates."""
GONE_SECONDS = 3.0
"""Age of the last heartbeat, in seconds, above which a worker counts as lost until the next one."""
HALF_SECONDS = 60.0
"""Half-life of the weights of past growth of responses, in seconds: a worker that has become slow is soon found."""
STEPS = 1000
"""Number of events that are processed before the event loop runs other tasks."""
BETWEEN = "waiting for the trainer: the queue was empty"
NO_BEST: Mapping[JobMode, str] = {
    "batch": "it is simulated after the end of the run, when all lengths are known",
    "serve": "the number and the lengths of the responses depend on the trainer",
}
ROUGHLY = 1.0
"""Error, in seconds, of a worker's start time as derived from its heartbeats."""


class _Counted(NamedTuple):
    """The counters of one heartbeat."""

    boot: str
    tokens: int = 0
    contexts: ContextCounts = ContextCounts()
    seconds: WorkerSeconds | None = None


@dataclass(slots=True)
class _Worker:
    """The state of a worker. `before`: the counters of its last heartbeat; `counted_all`: all counts of its first boot
    fall within the account's time."""

    parts: WorkerParts
    boot: str = ""
    seen_at: float = 0.0
    sums: CounterSums = field(default_factory=CounterSums)
    growth: WorkerGrowth = field(default_factory=WorkerGrowth)
    before: _Counted | None = None
    counted_all: bool = True


class _Queued(NamedTuple):
    batch: int
    requests: int


class _Noted(NamedTuple):
    """An entry of a journal. `change`: change of the number of the batch's waiting requests."""

    batch: int
    entry: JournalEntry
    change: int


class _Sign(NamedTuple):
    """A worker started or returned (`came`), or sent its last heartbeat (not `came`)."""

    worker: str
    came: bool


_Event = _Queued | _Noted | _Sign


class LiveAccount:
    """A running job's account of its workers' time. `queue` and `note` receive requests and journal entries from the
    books of its batches, `settle` adds them up; `explained` and `paces` return the results.

    The account begins when the first of the requests was queued that the store contains at the first read.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._workers: dict[str, _Worker] = {}
        self._events: list[tuple[float, int, _Event]] = []
        self._order = count()
        self._leases: dict[str, str] = {}
        self._waiting: Counter[int] = Counter()
        """Number of waiting requests, by batch."""
        self._flags = {WAITING: 0, STOCKED: 0}
        self._requests = 0
        self._settled_at = 0.0

    def queue(self, batch: int, at: float, requests: int) -> None:
        """Adds `requests` requests that were queued at time `at`, in seconds of the store's clock."""
        self._requests += requests
        self._push(at, _Queued(batch, requests))

    def note(self, batch: int, entry: JournalEntry, change: int) -> None:
        """Adds the next entry of a journal. `change`: change of the number of the batch's waiting requests."""
        self._push(entry.at, _Noted(batch, entry, change))

    async def settle(self, workers: Sequence[WorkerStatus], now: float, read_to: float) -> None:
        """Processes the heartbeats, and the events until `read_to`, the time up to which all journals were read. Times
        are seconds of the store's clock."""
        if self._since is None and self._events:
            self._since = self._events[0][0]
        if self._since is None:
            return
        here = [one for one in workers if one.heartbeat.state not in (WorkerState.STARTING, WorkerState.FOLLOWING)]
        faded = 0.5 ** (max(0.0, now - self._settled_at) / HALF_SECONDS)
        for status in here:
            self._hear(status, self._since, faded)
        steps = 0
        while self._events and self._events[0][0] <= read_to:
            at, _, event = heappop(self._events)
            self._take(at, event)
            if (steps := steps + 1) % STEPS == 0:
                await asyncio.sleep(0)
        for worker in self._workers.values():
            if worker.seen_at and now - worker.seen_at > GONE_SECONDS and not worker.parts.counts[LOST]:
                worker.parts.change(worker.seen_at, LOST, 1)
        self._settled_at = now

    def drop_batch(self, batch: int) -> None:
        """Removes the waiting and running requests of a batch whose data were deleted."""
        for request in [one for one in self._leases if RequestId.parse(one).group.batch == batch]:
            self._workers[self._leases.pop(request)].parts.change(self._settled_at, LEASES, -1)
        self._events = [one for one in self._events if isinstance(one[2], _Sign) or one[2].batch != batch]
        heapify(self._events)
        del self._waiting[batch]
        self._flag(self._settled_at)

    @property
    def in_tail(self) -> bool:
        """Whether no request waits and at least one runs."""
        return bool(self._leases) and not self._flags[WAITING]

    def paces(self) -> dict[str, WorkerPace]:
        """Returns the pace of responses at each worker, by the worker's name."""
        return compared({name: worker.growth for name, worker in self._workers.items()})

    def explained(self, policy: str, mode: JobMode, tail: str, now: float) -> Explained:
        """Returns the account until `now`, in seconds of the store's clock. `tail`: a sentence on the response that is
        expected to end last, or ""."""
        since = now if self._since is None else self._since
        by_worker: dict[str, dict[PartName, float]] = {
            name: divide(worker.parts.until(now), worker.sums.sums) for name, worker in self._workers.items()
        }
        sums: dict[PartName, float] = {
            part: sum((parts[part] for parts in by_worker.values()), 0.0) for part in PART_NAMES
        }
        whole, seconds = sum(sums.values()), max(0.0, now - since)
        slots = max((worker.parts.slots for worker in self._workers.values()), default=0)
        account = Account(whole, sums, by_worker, self.paces(), policy, slots, self._requests)
        # In mode serve the time without prompts is a wait for the trainer, and no problem of the fleet.
        but: tuple[PartName, ...] = ("prompts",) if mode == "serve" else ()
        labels = PART_LABELS | ({"prompts": BETWEEN} if mode == "serve" else {})
        found = [*slow_workers(account), *(large_parts(account, but=but) if seconds >= ENOUGH_SECONDS else ())]
        found.sort(key=lambda one: -one.worker_seconds)
        return Explained(
            live=True,
            seconds=round(seconds, 1),
            makespan_seconds=round(seconds, 1),
            workers=len(by_worker),
            worker_seconds=round(whole, 1),
            parts=[
                PartOfTime(
                    name=part,
                    label=labels[part],
                    worker_seconds=round(sums[part], 1),
                    share=round(account.share(sums[part]), 4),
                )
                for part in PART_NAMES
            ],
            findings=[StandsOut(**asdict(one)) for one in found[:MOST_FINDINGS]],
            tail=tail,
            no_best=NO_BEST[mode],
            notes=self._notes(seconds),
        )

    def _notes(self, seconds: float) -> list[str]:
        notes: list[str] = []
        if seconds < ENOUGH_SECONDS:
            notes.append(f"findings on the parts of the time need a job of at least {ENOUGH_SECONDS:g} s")
        if partly := [name for name, worker in self._workers.items() if not worker.counted_all]:
            notes.append(
                f"{named(partly)} ran before this page was first opened: earlier waits for the store, for weights and "
                "for contexts count as idle or decoding"
            )
        return notes

    # ---- adding up

    def _push(self, at: float, event: _Event) -> None:
        heappush(self._events, (at, next(self._order), event))

    def _worker(self, name: str, since: float) -> _Worker:
        known = self._workers.get(name)
        if known is None:
            known = self._workers[name] = _Worker(WorkerParts(since))
            for which, number in {BOOT: 1, SUBMITTED: 1, **self._flags}.items():
                known.parts.counts[which] = number
        return known

    def _hear(self, status: WorkerStatus, since: float, faded: float) -> None:
        worker, metrics = self._worker(status.name, since), status.heartbeat.metrics
        worker.parts.slots = metrics.slots or worker.parts.slots
        began = status.seen_at - status.heartbeat.idle_seconds - status.heartbeat.busy_seconds
        counted = _Counted(status.boot, metrics.tokens, metrics.contexts, metrics.seconds)
        worker.growth.fade(faded)
        if worker.boot != status.boot:
            if worker.boot:
                self._push(worker.seen_at, _Sign(status.name, came=False))
            self._push(max(since, began), _Sign(status.name, came=True))
            worker.before = None
        elif worker.parts.counts[LOST] and status.seen_at > worker.seen_at:
            self._push(status.seen_at, _Sign(status.name, came=True))
        if worker.before is None:
            zero = _Counted(status.boot, seconds=WorkerSeconds())
            worker.growth.note(zero, counted)
            ran = counted.seconds.running if counted.seconds is not None else 0.0
            worker.growth.fade(min(1.0, HALF_SECONDS / ran) if ran else 1.0)
            first_boot = not worker.boot
            worker.sums.note(counted)
            if first_boot and began < since - ROUGHLY:
                worker.sums.sums.clear()
                worker.counted_all = False
        else:
            worker.growth.note(worker.before, counted)
            worker.sums.note(counted)
        worker.before, worker.boot, worker.seen_at = counted, status.boot, status.seen_at

    def _take(self, at: float, event: _Event) -> None:
        if isinstance(event, _Noted):
            self._lease(at, event.entry)
            self._waiting[event.batch] += event.change
            self._flag(at)
        elif isinstance(event, _Queued):
            self._waiting[event.batch] += event.requests
            self._flag(at)
        else:
            parts = self._workers[event.worker].parts
            if event.came and parts.counts[BOOT]:
                parts.change(at, BOOT, -1)
            if event.came == bool(parts.counts[LOST]):
                parts.change(at, LOST, -1 if event.came else 1)

    def _lease(self, at: float, entry: JournalEntry) -> None:
        """Ends the request's running lease; a claim begins a new one."""
        holder = self._leases.pop(entry.request, None)
        if holder is not None:
            self._workers[holder].parts.change(at, LEASES, -1)
        if WORDS.get(entry.event) == "running":
            name = entry.worker.partition("#")[0]
            parts = self._worker(name, self._since or at).parts
            if parts.counts[BOOT]:
                parts.change(at, BOOT, -1)
            parts.change(at, LEASES, 1)
            self._leases[entry.request] = name

    def _flag(self, at: float) -> None:
        """Updates every worker's flags: whether any request of the job waits, and whether any waits or runs."""
        waiting = any(number > 0 for number in self._waiting.values())
        for which, flag in ((WAITING, int(waiting)), (STOCKED, int(waiting or bool(self._leases)))):
            if self._flags[which] != flag:
                self._flags[which] = flag
                for worker in self._workers.values():
                    worker.parts.change(at, which, flag - worker.parts.counts[which])


def holder_of_tail(books: Mapping[int, BatchBook], running: Iterable[LeaseBar], now: float) -> str:
    """Returns a sentence on the running response that is expected to end last; "" if none runs.
    `now`: seconds of the store's clock."""
    bars = list(running)

    def left(bar: LeaseBar) -> tuple[float, float]:
        request = RequestId.parse(bar.request)
        book = books.get(request.group.batch)
        group = book.groups.get(request.group.name) if book is not None else None
        return float((group.estimate or group.view.max_tokens) if group else 0) - bar.tokens, now - bar.start

    if not bars:
        return ""
    last = max(bars, key=left)
    request, seconds = RequestId.parse(last.request), max(0.0, now - last.start)
    return (
        f"{len(bars):,} responses run and no request waits; response {request.index} of group {request.group.name} is "
        f"expected to end last: {last.worker} has run it for {seconds:,.0f} s"
    )
