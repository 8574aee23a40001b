"""The reference model of the verbs of trainers, drivers and reports, in addition to the workers' verbs."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from openseer_core.errors import FreedError, RequestStateError
from openseer_core.ids import BATCH_JOB_BATCH, PARKED_BATCH, GroupId, RequestId
from openseer_core.model.job_clock import JobClock
from openseer_core.model.losses import LossQueue
from openseer_core.model.sorted_set import SortedSet
from openseer_core.model.state import QueuedBatch, QueuedGroup, QueuedRequest
from openseer_core.numbers import FIRST_BASE, issue
from openseer_core.queue.batch import BatchRecord, Entry, GroupEnd, OpenBatch, QueueLoad
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.length_estimate import expected_of
from openseer_core.queue.messages import APPEND, BatchProgress, Chunk, JournalEntry, RequestRecord
from openseer_core.queue.siblings import SiblingQuery, Siblings, SiblingTokens, shares
from openseer_core.queue.states import FINAL_STATES, Event, State, Status, after
from openseer_core.token_scores import appended_scores, record_items
from openseer_core.tokens import ITEM_BYTES, count_items


class JobQueue(LossQueue):
    """A job's whole queue: many batches, each with groups, a results stream and a journal."""

    def __init__(self, base: int = FIRST_BASE, clock: JobClock | None = None, fence_base: int = FIRST_BASE) -> None:
        super().__init__(base, clock, fence_base)
        self._keys: dict[str, int] = {}
        self._numbers = self._opened = 0

    # ---- batches

    def open_batch(self, batch: OpenBatch, now: float) -> tuple[BatchRecord, bool]:
        """Opens a batch under a new number, and returns it and True. If the key was used before, returns that batch and
        False."""
        if batch.key in self._keys:
            return self._record(self._ledger.page(self._keys[batch.key])), False
        self._numbers = issue(self._numbers, self._base)
        opened = QueuedBatch(self._numbers, batch.version, batch.spec, batch.key, now)
        self._opened += 1
        opened.ordinal = self._opened
        opened.takes_parked = batch.carry
        self._ledger.pages[opened.number] = opened
        if batch.key:
            self._keys[batch.key] = opened.number
        return self._record(opened), True

    def batches(self) -> list[BatchRecord]:
        """All opened batches whose data are not deleted, by number."""
        return [
            self._record(page)
            for number, page in sorted(self._ledger.pages.items())
            if number > 0 and not page.forgotten
        ]

    def batch(self, number: int) -> BatchRecord | None:
        """One opened batch; None if there is none."""
        found = self._ledger.pages.get(number)
        return self._record(found) if found is not None and number > 0 else None

    def batch_of_key(self, key: str) -> BatchRecord | None:
        """The batch that was opened with this key; None if there is none."""
        number = self._keys.get(key)
        return self.batch(number) if number is not None else None

    def acknowledge(self, batch: int, cursor: int) -> None:
        """Notes that the reader has stored all entries up to `cursor`; a lower cursor changes nothing."""
        known = self._ledger.page(batch)
        known.acknowledged = max(known.acknowledged, cursor)
        if batch <= BATCH_JOB_BATCH or not known.progress.sealed:
            return
        while known.entries and known.entries[0].cursor <= known.acknowledged:
            entry = known.entries.pop(0)
            known.swept = entry.cursor
            group = self._groups.get(entry.group) if isinstance(entry, GroupEnd) else None
            if group is not None and group.last_end == entry.cursor and group.endings.total() == group.spec.size:
                group.free()

    def forget(self, batch: int, now: float) -> None:
        """Deletes the data of a batch; its counts stay."""
        known = self._ledger.page(batch)
        self.end(self._ids(batch), Event.CANCEL, now)
        known.forgotten = True
        for name in known.names:
            del self._groups[GroupId(batch, name)]
        known.names, known.entries, known.journal, known.verdicts = [], [], [], {}

    def judge(self, batch: int, verdicts: dict[str, bool]) -> int:
        """Stores for each named group whether it is valid. Returns the number of groups that exist."""
        known, present = self._ledger.page(batch), 0
        for name, valid in verdicts.items():
            if GroupId(batch, name) not in self._groups:
                continue
            present += 1
            earlier = known.verdicts.get(name)
            if earlier is not None:
                self._ledger.count(batch, **{"valid" if earlier else "invalid": -1})
            self._ledger.count(batch, **{"valid" if valid else "invalid": 1})
            known.verdicts[name] = valid
        return present

    def verdict(self, group: GroupId) -> bool | None:
        """The latest verdict on a group; None if there is none."""
        return self._ledger.page(group.batch).verdicts.get(group.name)

    # ---- groups and requests

    def grow(self, spec: GroupSpec, present: int) -> None:
        """Replaces a group's spec by `spec`, and queues the requests from number `present` on, which are new."""
        group = self._groups[spec.id]
        if group.spec.size != present:
            return
        group.spec = spec
        group.view = replace(group.view, size=spec.size, revision=group.view.revision + 1)
        self._ledger.count(spec.id.batch, requests=spec.size - present)
        self._ledger.page(spec.id.batch).tail_at = 0.0
        for index in range(present, spec.size):
            group.requests.append(QueuedRequest(spec.biases[index], spec.lanes[index]))
            self._enqueue(group, index)

    def end(self, groups: Iterable[GroupId], event: Event, now: float, index: int | None = None) -> int:
        """Ends the unfinished requests of groups (only number `index`, if given). Returns their number."""
        count = 0
        for gid in groups:
            group = self._groups.get(gid)
            for place, request in enumerate(group.requests if group is not None else ()):
                if request.state not in FINAL_STATES and index in (None, place):
                    self._end(RequestId(gid, place), event, now)
                    count += 1
        return count

    def end_batch(self, batch: int, event: Event, now: float) -> int:
        """Ends every unfinished request of a batch. Returns their number."""
        return self.end(self._ids(batch), event, now)

    def go_on(self, request: RequestId, turn: int, tokens: bytes, now: float) -> bool:
        """Appends tokens to a response whose turn has ended, and queues it again. A repeat changes nothing."""
        group, state = self._groups[request.group], self._request(request)
        if group.freed:
            raise FreedError(f"{request} was acknowledged in a sealed batch: its data are gone")
        if state.turn == turn + 1:
            state.check_repeat(tokens, f"{request}: turn {turn}")
            return True
        if state.state is not State.DONE or state.turn != turn:
            raise RequestStateError(f"{request} is {state.state.value} in turn {state.turn}: turn {turn} has not ended")
        added = count_items(tokens)
        if state.generated + added >= group.spec.max_tokens:
            raise RequestStateError(f"{request} has no room: {state.generated} + {added} of {group.spec.max_tokens}")
        start = state.generated
        if group.spec.history:
            self._earlier.take_back(group.spec.history, bytes(state.tokens), now)
        state.logprobs += appended_scores(added, record_items(state.tokens, state.logprobs) if start else 1)
        state.tokens += tokens
        if added:
            span = (state.fence, start, start + added, now, now)
            state.chunks.append(Chunk("", *span, APPEND, group.version))
        state.turn, state.appended = state.turn + 1, (start, added)
        state.state = after(state.state, Event.GO_ON)
        state.status, state.reason = None, ""
        self._ledger.note(Event.GO_ON, request, state, now)
        ended = group.endings.total() == group.spec.size
        whole = group.endings[Status.OK] == group.spec.size
        group.endings[Status.OK] -= 1
        undone = {"ok": -1, "ok_tokens": -start, "closed_tokens": -state.generated}
        self._ledger.count(request.group.batch, **undone, groups_ended=-int(ended), groups_whole=-int(whole))
        self._enqueue(group, request.index)
        return True

    # ---- groups that move

    def carry(self, groups: Sequence[GroupId], batch: int, version: str, stale: tuple[str, ...], now: float) -> int:
        """Moves groups to another batch (see port.TrainerStore.carry). Returns the number of moved groups."""
        moved, known = 0, self._ledger.pages.get(batch)
        for gid in () if known and known.forgotten else groups:
            group, target = self._groups.get(gid), gid.carried(batch)
            if group is None or target in self._groups:
                continue
            if gid.batch != PARKED_BATCH and group.endings.total() == group.spec.size:
                continue
            if self._is_stale(group, stale):
                if gid.batch != PARKED_BATCH:
                    self.end([gid], Event.ABORT, now)
                self._ledger.count(batch, groups_stale=1)
            else:
                self._move(group, target, version, now)
                moved += 1
            if gid.batch == PARKED_BATCH:
                del self._groups[gid]
                self._ledger.page(PARKED_BATCH).names.remove(gid.name)
        if batch in self._ledger.pages:
            self._ledger.pages[batch].takes_parked = False
        return moved

    def _move(self, group: QueuedGroup, target: GroupId, version: str, now: float) -> None:
        spec = replace(group.spec, id=target, version=version)
        old = group.requests
        if group.spec.id.batch != PARKED_BATCH:
            self.end([group.spec.id], Event.CARRY, now)
        moved = self._add(spec)
        moved.view = replace(group.view, id=target, revision=0)
        moved.priority, moved.content = group.priority, group.content
        for index, request in enumerate(old):
            done = request.state is State.DONE
            moved.requests[index] = replace(
                request,
                state=State.DONE if done else State.QUEUED,
                leases=1,
                losses=0,
                expiries=0,
                tokens=bytearray(request.tokens),
                logprobs=bytearray(request.logprobs),
                chunks=list(request.chunks),
                reason=request.reason if done else "",
                status=Status.OK if done else None,
            )
            self._ledger.count(target.batch, tokens=request.generated, carried_tokens=request.generated)
            if target.batch == PARKED_BATCH:
                continue
            if done:
                self._ledger.note(Event.COMPLETE, RequestId(target, index), moved.requests[index], now)
                self._ledger.report(RequestId(target, index), moved, moved.requests[index], now)
            else:
                self._enqueue(moved, index)

    def change_version(self, batch: int, version: str, stale: tuple[str, ...], now: float) -> None:
        """Lets the batch's unfinished requests continue with another version (see port.TrainerStore.change_version)."""
        for gid in self._ids(batch):
            group = self._groups[gid]
            if group.version == version:
                continue
            open_ = [index for index, request in enumerate(group.requests) if request.state not in FINAL_STATES]
            if open_ and self._is_stale(group, stale):
                self.end([gid], Event.ABORT, now)
                continue
            for index in open_:
                if group.requests[index].state is State.LEASED:
                    self._end_lease(RequestId(gid, index), Event.REAP, now)
            waiting = group.waiting
            for index in open_:
                self._dequeue(group, index)
            group.version, group.waiting = version, {lane: SortedSet() for lane in waiting}
            for index in open_:
                self._enqueue(group, index)
        self._ledger.page(batch).version = version

    def _is_stale(self, group: QueuedGroup, stale: tuple[str, ...]) -> bool:
        return any(self._oldest_version(group, request) in stale for request in group.requests)

    def _oldest_version(self, group: QueuedGroup, request: QueuedRequest) -> str:
        """The version that sampled the request's first tokens; "" if it has no tokens."""
        for chunk in request.chunks:
            if chunk.end > chunk.start:
                return chunk.version
        return group.version if request.state is State.LEASED and request.generated > request.start else ""

    def _record(self, page: QueuedBatch) -> BatchRecord:
        return replace(page.record(), progress=self._counts(page))

    def _counts(self, page: QueuedBatch) -> BatchProgress:
        """The counts of a batch, with the expected totals of its groups. The Redis store keeps these totals as sums."""
        groups = [self._groups[gid] for gid in self._ids(page.number)]
        expected = [expected_of(group.view, group.spec.size - group.endings.total()) for group in groups]
        known, tokens = (sum(column) for column in zip(*expected, strict=True)) if expected else (0, 0)
        return replace(page.progress, open_known=known, open_expected=tokens)

    def _ids(self, batch: int) -> list[GroupId]:
        return [GroupId(batch, name) for name in self._ledger.page(batch).names]

    # ---- reading

    def inflight(self, worker: str) -> int:
        """Number of requests that are leased to the worker of that name."""
        return self._inflight.get(worker, 0)

    def load(self) -> QueueLoad:
        """The number of waiting requests by version, and the number of running requests."""
        return QueueLoad(self._waiting.by_version(), len(self._deadlines))

    def progress(self, batch: int) -> BatchProgress:
        """The counts of a batch; all are zero if the batch is unknown."""
        page = self._ledger.pages.get(batch)
        return self._counts(page) if page is not None else BatchProgress()

    def view(self, group: GroupId) -> GroupView:
        """The known facts of a group. Raises KeyError if the group is unknown."""
        return self._groups[group].view

    def spec(self, group: GroupId) -> GroupSpec | None:
        """A group's spec; None if the group is unknown or its data were deleted."""
        found = self._groups.get(group)
        return found.spec if found is not None and not found.freed else None

    def siblings(self, queries: Sequence[SiblingQuery], limit_bytes: int, now: float) -> list[Siblings]:
        """New tokens of responses, and earlier responses, by group (see port.WorkerStore.siblings)."""
        known = [query for query in queries if query.group in self._groups]
        earlier = self._earlier_of(known, limit_bytes // 2, now)
        used = sum(len(tokens) for responses in earlier for tokens in responses or ())
        fresh = [
            (place, index, position, tokens)
            for place, query in enumerate(known)
            for index, position in query.known
            if (tokens := self._since(query.group, index, position))
        ]
        room = max(limit_bytes - used, limit_bytes // 2) // ITEM_BYTES
        news: list[list[SiblingTokens]] = [[] for _ in known]
        given = shares([count_items(tokens) for *_, tokens in fresh], room)
        for (place, index, position, tokens), count in zip(fresh, given, strict=True):
            if count:
                news[place].append(SiblingTokens(index, position, tokens[: count * ITEM_BYTES]))
        answers = [Siblings(query.group, tuple(new), old) for query, new, old in zip(known, news, earlier, strict=True)]
        return [answer for answer in answers if answer.news or answer.earlier is not None]

    def _earlier_of(self, queries: Sequence[SiblingQuery], room: int, now: float) -> list[tuple[bytes, ...] | None]:
        """For each query that asks for them, the earlier responses to the group's prompt, until they fill `room` bytes;
        else None."""
        found: list[tuple[bytes, ...] | None] = []
        for query in queries:
            wanted = query.earlier and room > 0
            found.append(self._earlier.responses(self._groups[query.group].spec.history, now) if wanted else None)
            room -= sum(map(len, found[-1] or ()))
        return found

    def _since(self, group: GroupId, index: int, position: int) -> bytes:
        requests = self._groups[group].requests
        return bytes(requests[index].tokens[position * ITEM_BYTES :]) if index < len(requests) else b""

    def longest_earlier(self, digests: Sequence[str], now: float) -> list[int]:
        """The length, in tokens, of the longest stored response to each prompt; 0 if there is none."""
        return [self._earlier.longest(digest, now) for digest in digests]

    def results(self, batch: int, cursor: int, limit: int) -> list[Entry]:
        """Up to `limit` entries of a batch's results after `cursor`, in the order in which they were added."""
        entries = self._ledger.page(batch).entries
        start = bisect_right(entries, cursor, key=lambda entry: entry.cursor)
        return entries[start : start + limit]

    def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        """Entries `start` to `start + limit` of a batch's journal."""
        return self._ledger.page(batch).journal[start : start + limit]

    def names(self, batch: int) -> list[str]:
        """Names of a batch's groups in the order of submission."""
        return self._ledger.page(batch).names

    def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        """Groups `start` to `start + limit` of a batch in the order of submission, without groups whose data were
        deleted."""
        found = [self._groups[gid] for gid in self._ids(batch)[start : start + limit]]
        return [group.spec for group in found if not group.freed]

    def record(self, request: RequestId, start: int = 0, most: int | None = None) -> RequestRecord:
        """All data of one request, with at most `most` of its tokens and scores, from `start` on. Raises KeyError if
        the group or the request is unknown."""
        if request.index >= len(self._groups[request.group].requests):
            raise KeyError(request)
        state = self._request(request)
        first, end = start * ITEM_BYTES, len(state.tokens) if most is None else (start + most) * ITEM_BYTES
        items = record_items(state.tokens, state.logprobs) if state.tokens else 0
        tokens, logprobs = bytes(state.tokens[first:end]), bytes(state.logprobs[first * items : end * items])
        chunks = tuple(state.chunks)
        return RequestRecord(
            request, state.state, state.fence, tokens, logprobs, chunks, state.turn, state.holder, state.reason
        )

    def lengths(self, requests: Sequence[RequestId]) -> list[int]:
        """The number of stored tokens of each request, 0 if there are none."""
        return [self._length(request) for request in requests]

    def _length(self, request: RequestId) -> int:
        group = self._groups.get(request.group)
        known = group is not None and request.index < len(group.requests)
        return count_items(self._request(request).tokens) if known else 0
