"""What the journals of batches tell, entry by entry: leases of workers, groups by state, lengths as they come."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, inf, log2
from typing import Protocol

from openseer_core.ids import RequestId, WorkerId
from openseer_core.queue.group import GroupView
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.messages import JournalEntry
from openseer_core.queue.states import Event
from openseer_core.wire.page import MOST_BARS, MOST_PAIRS, Histogram, RequestWord

OCTAVE = 4
"""Bins of the histogram from a length to its double."""
WORDS: Mapping[str, RequestWord] = {
    Event.CLAIM: "running",
    Event.GIVE_BACK: "waiting",
    Event.REAP: "waiting",
    Event.GO_ON: "waiting",
    Event.COMPLETE: "ok",
    Event.ABORT: "aborted",
    Event.FAIL: "failed",
    Event.CANCEL: "cancelled",
    Event.CARRY: "carried",
}
"""What a request is after an event."""


@dataclass(slots=True)
class LeaseBar:
    """A lease. `end`: None while it runs; `tokens`: of the response at its end, at its begin while it runs."""

    request: str
    worker: str
    row: int
    start: float
    tokens: int
    end: float | None = None
    event: str = ""
    chunks: int = 1


class LeaseRows:
    """Leases of all workers, each in the lowest row of its worker that is free from its start on, so that bars never
    overlap, in whatever order entries come: each batch has a journal of its own."""

    def __init__(self, most_ended: int = MOST_BARS) -> None:
        self.running: dict[str, LeaseBar] = {}
        self.ended: deque[LeaseBar] = deque(maxlen=most_ended)
        self.dropped = 0
        """Ended leases that are not kept any more."""
        self._free_from: dict[str, list[float]] = {}
        """Of each row of a worker, infinity while a lease runs in it."""
        self._chunks: dict[str, int] = {}

    def note(self, entry: JournalEntry) -> None:
        """A claim begins a lease, whatever else happens to the request ends it."""
        known = self.running.pop(entry.request, None)
        if known is not None:
            known.end, known.event, known.tokens = entry.at, entry.event, entry.length
            if len(self.ended) == self.ended.maxlen:
                self.dropped += 1
            self.ended.append(known)
            self._free(known, entry.at)
        if entry.event != Event.CLAIM:
            if WORDS.get(entry.event) != "waiting":
                self._chunks.pop(entry.request, None)
            return
        worker = WorkerId.parse(entry.worker).name if "#" in entry.worker else entry.worker
        chunks = self._chunks[entry.request] = self._chunks.get(entry.request, 0) + 1
        bar = LeaseBar(entry.request, worker, self._row(worker, entry.at), entry.at, entry.length, chunks=chunks)
        self.running[entry.request] = bar

    def drop_batch(self, batch: int) -> None:
        """Forgets what runs of a batch whose data are gone."""
        for key in [key for key in self.running if RequestId.parse(key).group.batch == batch]:
            bar = self.running.pop(key)
            self._free(bar, bar.start)
            self._chunks.pop(key, None)

    def _row(self, worker: str, start: float) -> int:
        rows = self._free_from.setdefault(worker, [])
        row = next((row for row, free_from in enumerate(rows) if free_from <= start), len(rows))
        rows[row : row + 1] = [inf]
        return row

    def _free(self, bar: LeaseBar, at: float) -> None:
        self._free_from[bar.worker][bar.row] = max(at, bar.start)


class GroupBook:
    """A group. `view`: what the store knew of it when it was first seen; `words`: how many requests are what, those
    that wait and were never claimed left out; `longest`: tokens of its longest finished response."""

    def __init__(self, view: GroupView) -> None:
        self.view = view
        self.words: Counter[RequestWord] = Counter()
        self.waiting = view.size
        self.longest = 0
        self.estimate: int | None = None
        """Expected tokens of a response, as the policy reckons; None while nothing is known."""
        self.expected: dict[int, int | None] = {}
        """Of each response that has ended what `estimate` was then; its own length is not in it."""
        self._states: dict[int, RequestWord] = {}
        self._reckon()

    @property
    def is_open(self) -> bool:
        """Whether a request waits or runs."""
        return bool(self.waiting or self.words["running"])

    def move(self, index: int, word: RequestWord, length: int) -> None:
        """A request is something else now, with so many tokens."""
        before = self._states.get(index)
        if word in ("waiting", "running"):
            self.expected.pop(index, None)
        elif before in (None, "waiting", "running"):
            self.expected[index] = self.estimate
        if before is not None:
            self.words[before] -= 1
        self._states[index] = word
        self.words[word] += 1
        self.waiting += (word == "waiting") - (before in (None, "waiting"))
        if word == "ok":
            self.longest = max(self.longest, length)
        if "ok" in (word, before):
            self._reckon()

    def _reckon(self) -> None:
        view, finished = self.view, self.words["ok"]
        if finished or view.longest_earlier:
            facts = (view.id, 0, view.ordinal, view.size, view.max_tokens, view.enqueued_at)
            known = GroupView(*facts, finished, self.longest, longest_earlier=view.longest_earlier)
            self.estimate = estimate(known)
        else:
            self.estimate = None


class JournalReader(Protocol):
    """Whoever takes what the store tells, beside the books."""

    def learn(self, groups: Iterable[GroupView]) -> None:
        """Groups that were submitted."""
        ...

    def note(self, entries: Iterable[JournalEntry]) -> None:
        """The next entries of a journal."""
        ...


class BatchBook:
    """A batch by its journal."""

    def __init__(self, number: int, leases: LeaseRows, told: JournalReader | None = None) -> None:
        """`told`: who else adds up what comes."""
        self.number = number
        self._told = told
        self.named = self.read = 0
        """Names of groups, and entries of the journal, that are in it."""
        self.began_at = 0.0
        """When its first request was claimed, 0.0 before."""
        self.groups: dict[str, GroupBook] = {}
        self.pairs: deque[tuple[int, int]] = deque(maxlen=MOST_PAIRS)
        """Of finished responses: what their siblings had told, and what they came to."""
        self.tail_since: float | None = None
        """When the last request of those that are known was claimed; None while one waits, or none runs."""
        self._leases = leases
        self._bins: Counter[int] = Counter()
        self._waiting = 0

    def learn(self, count: int, views: Iterable[GroupView]) -> None:
        """The next `count` groups that were submitted, but for those whose data are gone."""
        self.named += count
        views = list(views)
        if self._told is not None:
            self._told.learn(views)
        for view in views:
            if view.id.name not in self.groups:
                self.groups[view.id.name] = GroupBook(view)
                self._waiting += view.size
                self.tail_since = None

    def note(self, entries: Iterable[JournalEntry]) -> None:
        """The next entries of its journal."""
        entries = list(entries)
        if self._told is not None:
            self._told.note(entries)
        for entry in entries:
            self.read += 1
            self.began_at = self.began_at or entry.at
            self._leases.note(entry)
            request = RequestId.parse(entry.request)
            group = self.groups.get(request.group.name)
            word = WORDS.get(entry.event)
            if group is not None and word is not None:
                self._move(group, request.index, word, entry)

    def _move(self, group: GroupBook, index: int, word: RequestWord, entry: JournalEntry) -> None:
        if word == "ok":
            if (known := group.estimate) is not None:
                self.pairs.append((known, entry.length))
            self._bins[bin_of(entry.length)] += 1
        before = group.waiting
        group.move(index, word, entry.length)
        self._waiting += group.waiting - before
        if self._waiting:
            self.tail_since = None
        elif self.tail_since is None:
            self.tail_since = entry.at

    def histogram(self) -> Histogram:
        """Lengths of finished responses."""
        if not self._bins:
            return Histogram()
        numbers = [
            number for number in range(min(self._bins), max(self._bins) + 1) if edge_of(number) < edge_of(number + 1)
        ]
        edges = [*map(edge_of, numbers), edge_of(numbers[-1] + 1)]
        return Histogram(edges=edges, counts=[self._bins[number] for number in numbers])


def bin_of(length: int) -> int:
    """The bin that a length is counted in."""
    number = max(0, int(OCTAVE * log2(max(1, length))))
    while edge_of(number + 1) <= length:
        number += 1
    return number


def edge_of(number: int) -> int:
    """The least length of a bin."""
    return ceil(2 ** (number / OCTAVE))
