"""Computes state from the journals of batches: leases of workers, groups by state, lengths of responses."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf, log2
from typing import Protocol

from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.queue.group import GroupView
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.messages import JournalEntry
from openseer_core.queue.states import Event
from openseer_core.wire.page import MOST_BARS, MOST_PAIRS, Histogram, RequestWord

OCTAVE = 4
"""Number of bins of the histogram per factor of two in length."""
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
"""The state of a request after an event."""


@dataclass(slots=True)
class LeaseBar:
    """A lease, as a bar of the page. `start`, `end`: seconds of the store's clock, `end` None while it runs; `tokens`:
    the response's length at the end of the lease, or at its start while it runs; `chunks`: the lease's number for its
    request, from 1."""

    request: str
    worker: str
    row: int
    start: float
    tokens: int
    end: float | None = None
    event: str = ""
    chunks: int = 1


class LeaseRows:
    """Leases of all workers. Each lease is in the lowest row of its worker that is free at its start. The leases in a
    row never overlap, also if entries of several journals arrive out of order."""

    def __init__(self, most_ended: int = MOST_BARS) -> None:
        self.running: dict[str, LeaseBar] = {}
        self.ended: deque[LeaseBar] = deque(maxlen=most_ended)
        self.dropped = 0
        """Number of ended leases that were dropped."""
        self._free_from: dict[str, list[float]] = {}
        """By worker: the time from which each row is free; infinity while a lease runs in it."""
        self._chunks: dict[str, int] = {}

    def note(self, entry: JournalEntry) -> None:
        """Processes a journal entry: every event ends the request's running lease, and a claim begins a new one."""
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
        """Removes the running leases of a batch whose data were deleted."""
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
    """The state of a group. `view`: its facts at the first read, with its latest known size; `words`: number of
    requests by state, without those that were never claimed; `waiting`: number of all waiting requests; `longest`:
    tokens of its longest finished response."""

    def __init__(self, view: GroupView) -> None:
        self.view = view
        self.words: Counter[RequestWord] = Counter()
        self.waiting = view.size
        self.longest = 0
        self.estimate: int | None = None
        """Expected tokens of a response; None before a response to the prompt has finished."""
        self.expected: dict[int, int | None] = {}
        """By index of an ended response: `estimate` before its end, which does not include its own length."""
        self._states: dict[int, RequestWord] = {}
        self._reckon()

    @property
    def is_open(self) -> bool:
        """Whether a request waits or runs."""
        return bool(self.waiting or self.words["running"])

    def grow(self, size: int) -> None:
        """Adds waiting requests up to `size`; does nothing if the group has more already."""
        if size > self.view.size:
            self.waiting += size - self.view.size
            self.view = replace(self.view, size=size)

    def move(self, index: int, word: RequestWord, length: int) -> None:
        """Changes the state of a request to `word`. `length`: its number of tokens."""
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
    """An object that receives the requests and journal entries that a BatchBook reads."""

    def queue(self, batch: int, at: float, requests: int) -> None:
        """Receives the number of requests that were queued at time `at`, in seconds of the store's clock."""
        ...

    def note(self, batch: int, entry: JournalEntry, change: int) -> None:
        """Receives the next entry of a journal. `change`: change of the number of the batch's waiting requests."""
        ...


class BatchBook:
    """The state of a batch, computed from its journal."""

    def __init__(self, number: int, leases: LeaseRows, reader: JournalReader | None = None) -> None:
        """`leases`: those of all batches; `reader`: receives the same requests and entries."""
        self.number = number
        self._reader = reader
        self.named = self.read = 0
        """Numbers of group names, and of journal entries, that were read."""
        self.began_at = 0.0
        """Time of the first claim, in seconds of the store's clock; 0.0 before."""
        self.groups: dict[str, GroupBook] = {}
        self.pairs: deque[tuple[int, int]] = deque(maxlen=MOST_PAIRS)
        """Pairs of the estimate from a finished response's siblings and its length, in tokens."""
        self.tail_since: float | None = None
        """Time at which the last known waiting request was claimed or ended, in seconds of the store's clock;
        None while a request waits."""
        self._leases = leases
        self._bins: Counter[int] = Counter()
        self._waiting = 0

    def learn(self, count: int, views: Iterable[GroupView]) -> None:
        """Adds the next `count` submitted groups. `views`: the views of those whose data are not deleted."""
        self.named += count
        for view in views:
            if view.id.name not in self.groups:
                self.groups[view.id.name] = GroupBook(view)
                self._queue(view.enqueued_at, view.size)

    def outgrown(self, entries: Iterable[JournalEntry]) -> dict[GroupId, float]:
        """Returns groups with more requests than this book has, each with the time of such a request's first entry."""
        found: dict[GroupId, float] = {}
        for entry in entries:
            request = RequestId.parse(entry.request)
            group = self.groups.get(request.group.name)
            if group is not None and request.index >= group.view.size:
                found.setdefault(request.group, entry.at)
        return found

    def grow(self, name: str, size: int, at: float) -> None:
        """Adds a group's further requests up to `size`, queued at `at`, in seconds of the store's clock."""
        group = self.groups[name]
        if (more := size - group.view.size) > 0:
            group.grow(size)
            self._queue(at, more)

    def _queue(self, at: float, requests: int) -> None:
        self._waiting += requests
        self.tail_since = None
        if self._reader is not None:
            self._reader.queue(self.number, at, requests)

    def note(self, entries: Iterable[JournalEntry]) -> None:
        """Processes the next entries of the batch's journal. A group grows to the requests that they name."""
        for entry in entries:
            self.read += 1
            self.began_at = self.began_at or entry.at
            self._leases.note(entry)
            request = RequestId.parse(entry.request)
            group = self.groups.get(request.group.name)
            word = WORDS.get(entry.event)
            change = 0
            if group is not None and word is not None:
                self.grow(request.group.name, request.index + 1, entry.at)
                change = self._move(group, request.index, word, entry)
            if self._reader is not None:
                self._reader.note(self.number, entry, change)

    def _move(self, group: GroupBook, index: int, word: RequestWord, entry: JournalEntry) -> int:
        """Changes a request's state; returns the change of the number of waiting requests."""
        if word == "ok":
            if (known := group.estimate) is not None:
                self.pairs.append((known, entry.length))
            self._bins[bin_of(entry.length)] += 1
        before = group.waiting
        group.move(index, word, entry.length)
        change = group.waiting - before
        self._waiting += change
        if self._waiting:
            self.tail_since = None
        elif self.tail_since is None:
            self.tail_since = entry.at
        return change

    def histogram(self) -> Histogram:
        """Returns the histogram of the lengths of finished responses."""
        if not self._bins:
            return Histogram()
        numbers = [
            number for number in range(min(self._bins), max(self._bins) + 1) if edge_of(number) < edge_of(number + 1)
        ]
        edges = [*map(edge_of, numbers), edge_of(numbers[-1] + 1)]
        return Histogram(edges=edges, counts=[self._bins[number] for number in numbers])


def bin_of(length: int) -> int:
    """Returns the number of the bin that contains a length, in tokens."""
    number = max(0, int(OCTAVE * log2(max(1, length))))
    while edge_of(number + 1) <= length:
        number += 1
    return number


def edge_of(number: int) -> int:
    """Returns the least length of a bin, in tokens."""
    return ceil(2 ** (number / OCTAVE))
