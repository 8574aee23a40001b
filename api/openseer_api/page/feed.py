"""Views of a job, shared by all viewers: reads the store and encodes each view once per TICK_SECONDS."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import groupby
from math import inf
from weakref import WeakKeyDictionary

from openseer_api.http.problems import NotFoundProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.page.account import LiveAccount, holder_of_tail
from openseer_api.page.batch_views import batch_view, likely_last, tail_of
from openseer_api.page.book import BatchBook, GroupBook, LeaseRows
from openseer_api.page.group_feed import GroupFeed
from openseer_api.page.job_views import bars_of, job_card
from openseer_api.page.lanes import FleetSeries, TokenRates, lanes_of
from openseer_api.page.shown import GroupViews
from openseer_api.routes.batches import rendered
from openseer_core.ids import BATCH_JOB_BATCH, INITIAL_VERSION, GroupId, RequestId
from openseer_core.json_model import JsonModel
from openseer_core.manifest.generation import JobMode
from openseer_core.queue.batch import BatchRecord, QueueLoad
from openseer_core.queue.group import GroupView
from openseer_core.queue.messages import JournalEntry
from openseer_core.wire.batches import Batch
from openseer_core.wire.page import MOST_BARS, WINDOW_SECONDS, Explained, JobCard, JobPulse, JobView
from openseer_core.wire.weights import Transaction, to_wire

TICK_SECONDS = 0.4
"""Minimum time between two reads of the store, in seconds."""
PAGE = 1000
"""Limit of groups, or of journal entries, in one call of the store."""
MOST_PAGES = 20
"""Limit of calls per batch and kind of data in one read of the store; the next read continues."""
LOOKUPS = 64
"""Limit of concurrent look-ups of groups."""
KEPT_SECONDS = 600.0
"""Time without a viewer, in seconds, after which a job's feed is dropped."""


class JobFeed:
    """The state of one job for its viewers. Views are JSON; all calls within TICK_SECONDS return the same bytes."""

    def __init__(self, job: JobContext) -> None:
        self._job = job
        self._lock = asyncio.Lock()
        self._looked_at = float("-inf")
        self.used_at = time.monotonic()
        self._written: dict[object, tuple[float, bytes]] = {}
        self._begin(job.store.epoch)

    def _begin(self, epoch: int) -> None:
        """Resets all state: in a new epoch the store may have lost entries that were read."""
        self._epoch = epoch
        self._leases = LeaseRows()
        self._books: dict[int, BatchBook] = {}
        self._rates, self._series, self._account = TokenRates(), FleetSeries(), LiveAccount()
        self._snapshot, self._load = FleetSnapshot(), QueueLoad()
        self._batches: list[Batch] = []
        self._transaction: Transaction | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        return self._job.job.namespace, self._job.job.name

    @property
    def mode(self) -> JobMode:
        """The job's mode."""
        return self._job.job.spec.mode

    # ---- views

    async def job_view(self) -> bytes:
        """Returns a JobView. Raises StoreUnavailableError."""
        return await self._view("job", self._job_view)

    async def job_pulse(self) -> bytes:
        """Returns a JobPulse. Raises StoreUnavailableError."""
        return await self._view("pulse", self._job_pulse)

    async def explained(self) -> bytes:
        """Returns an Explained. Raises StoreUnavailableError."""
        return await self._view("explained", self._explained)

    async def batch_view(self, number: int) -> bytes:
        """Returns a BatchView. Raises NotFoundProblem, StoreUnavailableError."""
        return await self._view(number, lambda: self._batch_view(number))

    async def card(self) -> JobCard:
        """Returns the job's card. Raises StoreUnavailableError."""
        async with self._lock:
            await self._look()
            return self._card()

    def group_views(self, group: GroupId, index: int | None, place: str = "") -> GroupViews:
        """Returns a source of GroupPages for one viewer; each contains the tokens since the previous one."""
        return GroupFeed(self._job, group, index, place, self._group_book)

    async def _group_book(self, group: GroupId) -> GroupBook | None:
        async with self._lock:
            await self._look()
            book = self._books.get(group.batch)
            return book.groups.get(group.name) if book is not None else None

    async def _view(self, key: object, make: Callable[[], Awaitable[JsonModel]]) -> bytes:
        async with self._lock:  # held during make() too: concurrent callers share its reads of the store
            await self._look()
            made_at, data = self._written.get(key, (float("-inf"), b""))
            if made_at == self._looked_at:
                return data
            data = (await make()).model_dump_json().encode()
            self._written = {one: kept for one, kept in self._written.items() if kept[0] == self._looked_at}
            self._written[key] = (self._looked_at, data)
            return data

    def _card(self) -> JobCard:
        fresh = [one for one in self._snapshot.workers if one.is_fresh(self._snapshot.now)]
        rates = [rate for one in fresh if (rate := self._rates.of(one)) is not None]
        rate = round(sum(rates), 1) if rates else None
        return job_card(self._job, self._snapshot, self._load, self._batches, self._transaction, rate)

    async def _job_view(self) -> JobView:
        snapshot, spec = self._snapshot, self._job.job.spec
        lanes = lanes_of(snapshot, self._load, self._rates, self._account.paces())
        return JobView(
            now=snapshot.now,
            card=self._card(),
            model=spec.model.path,
            engine=spec.model.engine,
            policy=spec.rollout.policy,
            weights_version=snapshot.fleet_spec.version,
            transaction=self._transaction,
            lanes=lanes,
            bars=bars_of(self._leases, lanes, snapshot.now - WINDOW_SECONDS, MOST_BARS),
            series=self._series.columns(),
            batches=self._batches,
        )

    async def _job_pulse(self) -> JobPulse:
        snapshot = self._snapshot
        return JobPulse(
            now=snapshot.now,
            card=self._card(),
            lanes=lanes_of(snapshot, self._load, self._rates, self._account.paces()),
        )

    async def _explained(self) -> Explained:
        spec, now = self._job.job.spec, self._snapshot.now
        tail = holder_of_tail(self._books, self._leases.running.values(), now) if self._account.in_tail else ""
        return self._account.explained(spec.rollout.policy, spec.mode, tail, now)

    async def _batch_view(self, number: int) -> JsonModel:
        book = self._books.get(number)
        batch = next((batch for batch in self._batches if batch.id == number), None)
        if book is None or batch is None:
            raise NotFoundProblem(f"there is no batch {number}; its data may have been acknowledged")
        now, prefix = self._snapshot.now, f"{number}/"
        running = [bar for key, bar in self._leases.running.items() if key.startswith(prefix)]
        shown = likely_last(book, running, now)
        known = await self._job.store.lengths([RequestId.parse(bar.request) for bar in shown])
        lengths = {bar.request: max(bar.tokens, length) for bar, length in zip(shown, known, strict=True)}
        workers = [one for one in self._snapshot.workers if one.inflight]
        paces = {one.name: rate / one.inflight for one in workers if (rate := self._rates.of(one)) is not None}
        tail = tail_of(book, shown, lengths, paces, now)
        return batch_view(book, batch, tail, len(running), now, live=True)

    # ---- reading the store

    async def _look(self) -> None:
        self.used_at = time.monotonic()
        if time.monotonic() - self._looked_at < TICK_SECONDS:
            return
        job = self._job
        snapshot, load, records = await asyncio.gather(job.snapshot(fresh=True), job.store.load(), self._records())
        if job.store.epoch != self._epoch:
            self._begin(job.store.epoch)
        self._snapshot, self._load = snapshot, load
        self._transaction = to_wire(snapshot.fleet_spec, snapshot.workers, snapshot.now).transaction
        self._rates.note(snapshot.workers)
        self._series.note(snapshot, load, self._rates)
        for gone in self._books.keys() - {record.number for record in records}:
            del self._books[gone]
            self._leases.drop_batch(gone)
            self._account.drop_batch(gone)
        reached, noted = inf, list[tuple[BatchBook, JournalEntry]]()
        for record in records:
            book = self._books.setdefault(record.number, BatchBook(record.number, self._leases, self._account))
            entries, until = await self._read(book)
            reached = min(reached, until)
            noted += [(book, entry) for entry in entries]
        await self._note(noted)
        await self._account.settle(snapshot.workers, snapshot.now, reached)
        self._batches = [rendered(job, record, snapshot, snapshot.now) for record in records]
        self._looked_at = time.monotonic()

    async def _records(self) -> list[BatchRecord]:
        store, job = self._job.store, self._job.job
        if job.spec.mode == "serve":
            return await store.batches()
        progress = await store.progress(BATCH_JOB_BATCH)
        book = self._books.get(BATCH_JOB_BATCH)
        began = book.began_at if book is not None else 0.0
        return [BatchRecord(BATCH_JOB_BATCH, INITIAL_VERSION, "{}", progress, began, began)]

    async def _note(self, noted: list[tuple[BatchBook, JournalEntry]]) -> None:
        """Adds the entries of all batches to their books in the order of their times, because the leases of all batches
        share the rows of a worker."""
        noted.sort(key=lambda one: one[1].at)
        for start in range(0, len(noted), PAGE):
            for book, entries in groupby(noted[start : start + PAGE], key=lambda one: one[0]):
                book.note(entry for _, entry in entries)
            await asyncio.sleep(0)

    async def _read(self, book: BatchBook) -> tuple[list[JournalEntry], float]:
        """Adds the next groups to the book. Returns the next journal entries, and the time up to which they are
        complete (infinity: all were read)."""
        # The journal is read before the groups, so that the book has the groups of all entries.
        found, until = await self._entries(book)
        await self._learn(book)
        for start in range(0, len(found), PAGE):
            grown = book.outgrown(found[start : start + PAGE])
            for view in await self._views(list(grown)):
                book.grow(view.id.name, view.size, grown[view.id])
            await asyncio.sleep(0)
        return found, until

    async def _entries(self, book: BatchBook) -> tuple[list[JournalEntry], float]:
        found = list[JournalEntry]()
        for _ in range(MOST_PAGES):
            entries = await self._job.store.journal(book.number, book.read + len(found), PAGE)
            found += entries
            if len(entries) < PAGE:
                return found, inf
        return found, found[-1].at

    async def _learn(self, book: BatchBook) -> None:
        for _ in range(MOST_PAGES):
            names = await self._job.store.group_names(book.number, book.named, PAGE)
            book.learn(len(names), await self._views([GroupId(book.number, name) for name in names]))
            if len(names) < PAGE:
                break

    async def _views(self, groups: list[GroupId]) -> list[GroupView]:
        """Returns the views of the groups whose data are not deleted."""
        found = list[GroupView]()
        for start in range(0, len(groups), LOOKUPS):
            views = await asyncio.gather(*map(self._group, groups[start : start + LOOKUPS]))
            found += [view for view in views if view is not None]
        return found

    async def _group(self, group: GroupId) -> GroupView | None:
        try:
            return await self._job.store.group_view(group)
        except KeyError:
            return None


class Feeds:
    """The feeds of all jobs that have viewers."""

    def __init__(self) -> None:
        self._feeds: WeakKeyDictionary[JobContext, JobFeed] = WeakKeyDictionary()

    def of(self, job: JobContext) -> JobFeed:
        """Returns a job's feed; drops the feeds that had no viewer for KEPT_SECONDS."""
        now = time.monotonic()
        for other, feed in list(self._feeds.items()):
            if now - feed.used_at > KEPT_SECONDS:
                del self._feeds[other]
        if job not in self._feeds:
            self._feeds[job] = JobFeed(job)
        return self._feeds[job]
