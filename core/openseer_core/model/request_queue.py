"""The reference model of the queue of requests: the behaviour of every store, in plain Python.

The queue has two levels (see queue.group): per weights version and lane a sorted set of groups by score; per group and
lane a sorted set of its waiting requests. So one update moves all waiting siblings of a finished request. Time is an
argument. The verbs of trainers are in job_queue.py.
"""

from openseer_core.errors import BatchClosedError, NameTakenError
from openseer_core.ids import PROBE_INDEX, GroupId, RequestId, WorkerId
from openseer_core.model.accounting import Ledger
from openseer_core.model.claimers import Claimers
from openseer_core.model.claiming import Claiming
from openseer_core.model.earlier_responses import EarlierResponses
from openseer_core.model.job_clock import JobClock
from openseer_core.model.sorted_set import SortedSet
from openseer_core.model.state import QueuedGroup, QueuedRequest, claim_of
from openseer_core.model.suspects import Suspects
from openseer_core.model.waiting_counts import WaitingCounts
from openseer_core.numbers import FIRST_BASE, issue
from openseer_core.queue import budgets
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView, Priority
from openseer_core.queue.kv_blocks import size_of, sizes_below, sizes_to_claim
from openseer_core.queue.messages import (
    EXPIRY_LIMIT,
    REAP_LIMIT,
    Chunk,
    Claim,
    ClaimQuery,
    Delta,
    ExtendReply,
    Finish,
    FleetLoad,
    Reply,
    Rescore,
    WriteOutcome,
    suspect_losses,
)
from openseer_core.queue.states import ENDINGS, FINAL_STATES, Event, FinishReason, State, Status, after
from openseer_core.tokens import count_items
from openseer_core.worker.heartbeat import FRESH_SECONDS

EXPIRED = 0.0
"""The deadline of a lease whose holder has died. Such a lease is taken back at once, also in grace."""

OUTCOME_EVENTS = {Status.OK: Event.COMPLETE, Status.ABORTED: Event.ABORT, Status.INFRA_FAILED: Event.FAIL}
"""The event for each status with which a worker may end a request."""


class ChunkQueue:
    """The workers' verbs of a job's queue. `now` is in seconds of `clock`, which also decides about grace. `base`: the
    base of numbers (see numbers.issue); `fence_base`: the base of fences."""

    def __init__(self, base: int = FIRST_BASE, clock: JobClock | None = None, fence_base: int = FIRST_BASE) -> None:
        self._base = base
        self._fence_base = fence_base
        self._clock = clock or JobClock()
        self._groups: dict[GroupId, QueuedGroup] = {}
        self._ledger = Ledger(base)
        self._earlier = EarlierResponses()
        self._heads: dict[tuple[str, str], SortedSet] = {}
        self._sized: dict[tuple[str, str, int], SortedSet] = {}
        self._waiting = WaitingCounts()
        self._deadlines = SortedSet()
        self._inflight: dict[str, int] = {}
        self.claimers = Claimers()
        self._boots: dict[str, list[str]] = {}
        self._suspects = Suspects()
        self._lost: dict[str, set[str]] = {}
        self._max_losses = float("inf")
        self._claimed: dict[str, tuple[str, int, list[tuple[RequestId, int]]]] = {}

    # ---- submitting

    def submit(self, spec: GroupSpec) -> bool:
        """Queues a group's requests and returns True. Returns False, and changes nothing, if the group exists already.

        The group gets the present version of its batch, which may have changed since the spec was made. Raises
        BatchClosedError for a new group of a sealed or deleted batch, NameTakenError if another group has its name.
        """
        if spec.id in self._groups:
            if self._groups[spec.id].content != spec.content():
                raise NameTakenError(spec.id.batch, spec.id.name)
            return False
        batch = self._ledger.page(spec.id.batch)
        if batch.progress.sealed or batch.forgotten:
            raise BatchClosedError(batch.number)
        group = self._add(spec)
        group.version = batch.version or spec.version
        for index in range(spec.size):
            self._enqueue(group, index)
        return True

    def seal(self, batch: int) -> None:
        """Closes the batch for new groups."""
        self._ledger.seal(batch)

    def _add(self, spec: GroupSpec) -> QueuedGroup:
        requests = [QueuedRequest(bias, lane) for bias, lane in zip(spec.biases, spec.lanes, strict=True)]
        group = self._groups[spec.id] = QueuedGroup(spec, spec.view(), spec.priority, requests, spec.version)
        batch = self._ledger.page(spec.id.batch)
        batch.names.append(spec.id.name)
        batch.tail_at = 0.0
        self._ledger.count(batch.number, groups=1, requests=spec.size)
        return group

    # ---- the worker's verbs

    def claim(self, worker: WorkerId, query: ClaimQuery, now: float) -> list[Claim]:
        """Leases the waiting requests with the lowest scores that fit the worker's free blocks and its share of the
        load."""
        self._max_losses = query.max_losses
        self.reap(now, query.max_losses)
        self.claimers.count_in(worker.name, query.context_tokens, now)
        claiming = Claiming(
            worker,
            query,
            query.blocks,
            lambda name: self._groups[GroupId.parse(name)],
            lambda group, index: self._lease(group, index, worker, query, now),
        )
        for lane in query.lanes:
            allowed = query.slots - len(claiming.claims)
            claiming.ends = lane != SHARED_LANE or query.context_tokens >= self.claimers.largest
            if lane == SHARED_LANE:
                fleet_load = self.fleet_load(worker, query.versions, (lane,))
                allowed = min(allowed, fleet_load.may_claim(query))
            for version in query.versions:
                allowed -= claiming.claim_suspect(self._suspects.first((version, lane), worker.name), allowed)
            heads = [self._heads.get((version, lane), SortedSet()) for version in query.versions]
            allowed, misses = claiming.claim_in(lane, heads, allowed)
            if misses >= budgets.HEAD_WINDOW:
                sizes = sizes_to_claim(claiming.blocks, query.layout, query.context_tokens, ends=claiming.ends)
                places = [(version, lane, size) for version in query.versions for size in sizes]
                claiming.claim_in(lane, [self._sized.get(place, SortedSet()) for place in places], allowed)
        self.claimers.note_claim(worker.name, query.versions, found=bool(claiming.claims))
        return claiming.claims

    def extend(
        self,
        worker: WorkerId,
        deltas: list[Delta],
        rescores: list[Rescore],
        now: float,
        *,
        lease_seconds: float,
        version: str,
        lanes: tuple[str, ...],
        adapters: tuple[str, ...] = (),
    ) -> ExtendReply:
        """Appends new tokens, renews the leases, writes the rescores, and returns the fleet load."""
        replies: list[Reply] = []
        for delta in deltas:
            reply = self._check(delta)
            if reply.outcome is WriteOutcome.OK and self._request(delta.request).state is not State.LEASED:
                reply = Reply(WriteOutcome.LOST)
            if reply.outcome is WriteOutcome.OK:
                reply = Reply(WriteOutcome.OK, self._append(delta))
                self._deadlines.put(str(delta.request), now + lease_seconds)
            replies.append(reply)
        views: list[GroupView] = []
        for rescore in rescores:
            group = self._groups.get(rescore.view.id)
            if group is not None and group.view.revision == rescore.revision:
                self._place(group, group.view.with_running(rescore.view.longest_running), rescore.priority)
            elif group is not None:
                views.append(group.view)
        return ExtendReply(tuple(replies), tuple(views), self.fleet_load(worker, (version, *adapters), lanes))

    def complete(self, finishes: list[Finish], now: float) -> list[Reply]:
        """Ends requests: writes last tokens, result, the group's facts and its siblings' scores, all in one step."""
        return [self._complete(finish, now) for finish in finishes]

    def give_back(self, deltas: list[Delta], now: float, *, lost: bool = False) -> list[Reply]:
        """Returns requests to the queue with their tokens; `lost`: the engine failed, which counts as a loss."""
        replies: list[Reply] = []
        for delta in deltas:
            reply = self._check(delta)
            if reply.outcome is WriteOutcome.OK and self._request(delta.request).state is State.LEASED:
                reply = Reply(WriteOutcome.OK, self._append(delta))
                if lost:
                    self._lose(delta.request, self._max_losses, now, died=True)
                else:
                    self._request(delta.request).absolve()
                    self._end_lease(delta.request, Event.GIVE_BACK, now)
            replies.append(reply)
        return replies

    def reap(self, now: float, max_losses: int, *, everything: bool = False) -> int:
        """Takes back leases past their deadline. More than `max_losses` losses, or EXPIRY_LIMIT expiries and losses
        together, fail a request.

        During grace, only leases of dead workers are taken back, and no worker is removed from the claimers.
        `everything`: takes back all leases; they then count neither as expiries nor as losses.
        """
        grace = self._clock.in_grace(now)
        expired = self._deadlines.up_to(float("inf") if everything else EXPIRED if grace else now, REAP_LIMIT)
        for name in expired:
            request = RequestId.parse(name)
            holder = WorkerId.parse(self._request(request).holder)
            if everything:
                self._reclaim(request, max_losses, now)
            elif self._has_died(holder):
                self._lose(request, max_losses, now, died=True)
            else:
                self.claimers.count_out(holder.name)  # the worker did not renew the lease
                self._lost.setdefault(holder.name, set()).add(name)
                self._lose(request, max_losses, now, died=False)
        if not grace:
            self.claimers.count_out_silent(now - FRESH_SECONDS)
        return len(expired)

    # ---- reading

    def fleet_load(self, worker: WorkerId, versions: tuple[str, ...], lanes: tuple[str, ...]) -> FleetLoad:
        """The fleet load for this worker; `best_waiting` without requests that only workers with larger limits take."""
        limit = self.claimers.limit(worker.name)
        places = [(version, lane) for version in versions for lane in lanes]
        heads = [self._heads.get(place) for place in places]
        if 0 < limit < self.claimers.largest:
            heads = [self._sized.get((*place, size)) for place in places for size in sizes_below(limit)]
        fronts = [groups.at(0) for groups in heads if groups]
        return FleetLoad(
            waiting=sum(map(self._waiting.of, places)),
            best_waiting=min((front[0] for front in fronts if front), default=float("inf")),
            mine=self._inflight.get(worker.name, 0),
            inflight=len(self._deadlines),
            workers=self.claimers.peers(limit),
            free_pace=self.claimers.free_pace(worker.name, versions),
        )

    def take_call(self, versions: tuple[str, ...], lanes: tuple[str, ...]) -> bool:
        """Removes a pending call of the first lane that has one. Returns whether there was a call."""
        return self._waiting.take_call([(version, lane) for version in versions for lane in lanes])

    def inflight(self, worker: str) -> int:
        """Number of requests that are leased to the worker of that name."""
        return self._inflight.get(worker, 0)

    # ---- the queue's two levels

    def _request(self, request: RequestId) -> QueuedRequest:
        return self._groups[request.group].requests[request.index]

    def _enqueue(self, group: QueuedGroup, index: int) -> None:
        request = group.requests[index]
        waiting = group.waiting.setdefault(request.lane, SortedSet())
        probing = index == PROBE_INDEX and group.priority.probe is not None
        if request.losses >= suspect_losses(self._max_losses):
            score = group.priority.request_score(request.bias, request.generated, is_probe=probing)
            self._suspects.put((group.version, request.lane), RequestId(group.spec.id, index), score)
        else:
            score = float("-inf") if probing else request.bias + group.priority.slope * request.generated
            waiting.put(f"{index:04d}", score)
        self._waiting.add((group.version, request.lane), 1)
        self._refresh(group, request.lane)

    def _dequeue(self, group: QueuedGroup, index: int) -> None:
        lane = group.requests[index].lane
        group.waiting[lane].discard(f"{index:04d}")
        self._suspects.discard((group.version, lane), RequestId(group.spec.id, index))
        self._waiting.add((group.version, lane), -1)
        self._refresh(group, lane)

    def _refresh(self, group: QueuedGroup, lane: str) -> None:
        name, heads = str(group.spec.id), self._heads.setdefault((group.version, lane), SortedSet())
        heads.discard(name)
        if lane in group.sizes:
            self._sized[group.version, lane, group.sizes.pop(lane)].discard(name)
        front = group.waiting[lane].at(0)
        if front is None:
            return
        generated = group.requests[int(front[1])].generated
        probing = front[0] == float("-inf")
        score = (group.priority.probe or 0.0) + generated if probing else group.priority.base + front[0]
        heads.put(name, score)
        size = group.sizes[lane] = size_of(count_items(group.spec.prompt) + generated)
        self._sized.setdefault((group.version, lane, size), SortedSet()).put(name, score)

    def _place(self, group: QueuedGroup, view: GroupView, priority: Priority) -> None:
        group.view, group.priority = view, priority
        for lane in group.waiting:
            self._refresh(group, lane)

    # ---- leases

    def _lease(self, group: QueuedGroup, index: int, worker: WorkerId, query: ClaimQuery, now: float) -> Claim:
        request, spec = RequestId(group.spec.id, index), group.spec
        self._dequeue(group, index)
        state = group.requests[index]
        state.state = after(state.state, Event.CLAIM)
        state.leases += 1
        state.fence = issue(state.fence, self._fence_base)
        state.holder, state.claimed_at, state.start = str(worker), now, state.generated
        state.suspect = state.losses >= suspect_losses(query.max_losses)
        self._suspects.hold(worker.name, state.suspect)
        self._deadlines.put(str(request), now + query.lease_seconds)
        self._inflight[worker.name] = self._inflight.get(worker.name, 0) + 1
        self._ledger.note(Event.CLAIM, request, self._request(request), now)
        batch = self._ledger.page(spec.id.batch)
        batch.started_at = batch.started_at or now
        return claim_of(request, group)

    def _check(self, delta: Delta) -> Reply:
        if delta.request.group not in self._groups:
            return Reply(WriteOutcome.LOST)
        state = self._request(delta.request)
        if state.fence != delta.fence or delta.fence == 0:
            return Reply(WriteOutcome.LOST)
        if delta.offset > state.generated:
            return Reply(WriteOutcome.GAP, state.generated)
        return Reply(WriteOutcome.OK, state.generated)

    def _append(self, delta: Delta) -> int:
        state = self._request(delta.request)
        before = state.generated
        state.add(delta)
        self._ledger.count(delta.request.group.batch, tokens=state.generated - before)
        return state.generated

    def _complete(self, finish: Finish, now: float) -> Reply:
        request = finish.delta.request
        reply = self._check(finish.delta)
        if reply.outcome is not WriteOutcome.OK:
            return reply
        group, state = self._groups[request.group], self._request(request).state
        if state is State.QUEUED:
            return Reply(WriteOutcome.LOST)  # the lease was reaped, and no worker has claimed the request since
        if state in FINAL_STATES:
            return Reply(WriteOutcome.OK, reply.have, group.view)  # a repeat of a completed write
        if finish.rescore and finish.rescore.revision != group.view.revision:
            return Reply(WriteOutcome.STALE, reply.have, group.view)
        length = self._append(finish.delta)
        if finish.status is Status.OK:
            self._request(request).absolve()
            priority = finish.rescore.priority if finish.rescore else group.priority
            self._place(group, group.view.with_finish(length), priority)
            if group.spec.history and length:
                tokens = bytes(self._request(request).tokens)
                self._earlier.keep(group.spec.history, group.spec.history_size, tokens, now)
        event = OUTCOME_EVENTS[finish.status]
        self._close(request, event, finish.status, finish.reason, finish.stop_reason, now)
        return Reply(WriteOutcome.OK, length, group.view)

    def _has_died(self, holder: WorkerId) -> bool:
        return self._boots.get(holder.name, [holder.boot])[0] != holder.boot

    def _lose(self, request: RequestId, max_losses: float, now: float, *, died: bool) -> None:
        state = self._request(request)
        state.expiries += 1
        state.losses += int(died)
        self._reclaim(request, max_losses, now)

    def _reclaim(self, request: RequestId, max_losses: float, now: float) -> None:
        state = self._request(request)
        if state.losses > max_losses or state.expiries > EXPIRY_LIMIT:
            self._end(request, Event.FAIL, now)
        else:
            self._end_lease(request, Event.REAP, now)

    def _end_lease(self, request: RequestId, event: Event, now: float) -> None:
        self._release(request, event, now)
        self._enqueue(self._groups[request.group], request.index)

    def _release(self, request: RequestId, event: Event, now: float) -> None:
        state = self._request(request)
        self._deadlines.discard(str(request))
        self._inflight[WorkerId.parse(state.holder).name] -= 1
        self._suspects.hold(WorkerId.parse(state.holder).name, -state.suspect)
        state.suspect = False
        version = self._groups[request.group].version
        span = (state.fence, state.start, state.generated, state.claimed_at, now)
        state.chunks.append(Chunk(state.holder, *span, event.value, version))
        state.state = after(state.state, event)
        self._ledger.note(event, request, self._request(request), now)

    def _end(self, request: RequestId, event: Event, now: float) -> None:
        """Ends an unfinished request by an event other than completion."""
        self._close(request, event, *ENDINGS[event], "", now)

    def _close(
        self,
        request: RequestId,
        event: Event,
        status: Status,
        reason: FinishReason,
        stop_reason: str,
        now: float,
    ) -> None:
        group, state = self._groups[request.group], self._request(request)
        if state.state is State.LEASED:
            self._release(request, event, now)
        else:
            self._dequeue(group, request.index)
            state.state = after(state.state, event)
            self._ledger.note(event, request, self._request(request), now)
        state.status, state.reason, state.stop_reason = status, reason.value, stop_reason
        self._ledger.report(request, group, state, now)
