"""Counts, results streams and journals of a job's batches in the reference queue."""

from dataclasses import replace

from openseer_core.ids import RequestId
from openseer_core.model.state import QueuedBatch, QueuedGroup, QueuedRequest, result_of
from openseer_core.numbers import FIRST_BASE, issue
from openseer_core.queue.batch import TAIL, GroupEnd
from openseer_core.queue.messages import BatchProgress, JournalEntry
from openseer_core.queue.states import Event, Status


class Ledger:
    """One page (QueuedBatch) per batch, created at the first use."""

    def __init__(self, base: int = FIRST_BASE) -> None:
        self._base = base
        self.pages: dict[int, QueuedBatch] = {}

    def page(self, number: int) -> QueuedBatch:
        """The page of a batch."""
        return self.pages.setdefault(number, QueuedBatch(number))

    def seal(self, number: int) -> None:
        """Closes the batch for new groups."""
        page = self.page(number)
        page.progress = replace(page.progress, sealed=True)

    def count(self, number: int, **by: int) -> BatchProgress:
        """Adds numbers to the counts of a batch, by field of BatchProgress. Returns the new counts."""
        page = self.page(number)
        page.progress = replace(page.progress, **{name: getattr(page.progress, name) + n for name, n in by.items()})
        return page.progress

    def note(self, event: Event, request: RequestId, state: QueuedRequest, now: float) -> None:
        """Adds an entry to the batch's journal."""
        entry = JournalEntry(now, event.value, str(request), state.holder, state.fence, state.generated)
        self.page(request.group.batch).journal.append(entry)

    def report(self, request: RequestId, group: QueuedGroup, state: QueuedRequest, now: float) -> None:
        """Counts a request that has ended, and appends its result. After the last request of a group, also appends the
        group's end."""
        assert state.status is not None
        page = self.page(request.group.batch)
        whole = state.generated if state.status is Status.OK else 0
        self.count(page.number, **{state.status.value: 1}, closed_tokens=state.generated, ok_tokens=whole)
        page.entries.append(result_of(self._next_cursor(page), request, group, state, now, state.status))
        page.ended_at = now
        if state.status is Status.OK:
            page.progress = replace(page.progress, longest=max(page.progress.longest, state.generated))
        if not page.tail_at and TAIL * page.progress.closed >= (TAIL - 1) * page.progress.requests:
            page.tail_at = now
        group.endings[state.status] += 1
        if group.endings.total() == group.spec.size:
            self._end_group(page, group, now)

    def _end_group(self, page: QueuedBatch, group: QueuedGroup, now: float) -> None:
        counts = [group.endings[status] for status in Status]
        end = GroupEnd(0, group.spec.id, now, group.spec.size, *counts)
        by = {"groups_whole": int(end.whole), "groups_carried": int(end.carried_over > 0)}
        self.count(page.number, groups_ended=1, **by)
        group.last_end = self._next_cursor(page)
        page.entries.append(replace(end, cursor=group.last_end))

    def _next_cursor(self, page: QueuedBatch) -> int:
        page.progress = replace(page.progress, entries=issue(page.progress.entries, self._base))
        return page.progress.entries
