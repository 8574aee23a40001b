"""Worker boots: repeated claims, and leases that ended by the death of their worker.

A lease that ends without a call of its holder is an expiry; with evidence of a death it is also a loss.
"""

from openseer_core.ids import RequestId, WorkerId
from openseer_core.model.request_queue import EXPIRED, ChunkQueue
from openseer_core.model.state import claim_of
from openseer_core.queue.messages import REAP_LIMIT, Claim, ClaimQuery
from openseer_core.queue.states import Event, State

PAST_BOOTS = 16
"""Number of earlier boots that are remembered per worker: a late heartbeat of one of them changes nothing."""


class LossQueue(ChunkQueue):
    """The queue of requests with the boots of its workers."""

    def claim(self, worker: WorkerId, query: ClaimQuery, now: float) -> list[Claim]:
        """Leases requests; a repeat (same `query.number`) returns the first call's leases that are still held."""
        boot, number, leases = self._claimed.get(worker.name, ("", 0, []))
        if query.number and (boot, number) == (worker.boot, query.number):
            return [
                claim_of(request, self._groups[request.group])
                for request, fence in leases
                if self._is_held(request, fence)
            ]
        claims = super().claim(worker, query, now)
        if claims and query.number:
            leases = [(claim.request, claim.fence) for claim in claims]
            self._claimed[worker.name] = worker.boot, query.number, leases
        return claims

    def _is_held(self, request: RequestId, fence: int) -> bool:
        if request.group not in self._groups:
            return False
        state = self._request(request)
        return state.state is State.LEASED and state.fence == fence

    def note_boot(self, worker: WorkerId, now: float) -> bool:
        """Handles a heartbeat. Returns False if a later boot has the name; then nothing changes.

        A new boot is evidence that the last one died: that one's leases expire at once and count as losses, and so do
        its leases that had expired before. If the boot is the present one, its expired leases were lost by a stall.
        """
        boots = self._boots.get(worker.name, [])
        if worker.boot in boots[1:]:
            return False
        if boots and worker.boot == boots[0]:
            self._lost.pop(worker.name, None)
        else:
            self._boots[worker.name] = [worker.boot, *boots[:PAST_BOOTS]]
            if boots:
                self._bury(worker, now)
        return True

    def forget_worker(self, worker: WorkerId) -> None:
        """Forgets a worker that has left."""
        self._boots.pop(worker.name, None)
        self._lost.pop(worker.name, None)
        self._claimed.pop(worker.name, None)
        self.claimers.count_out(worker.name)

    def _bury(self, worker: WorkerId, now: float) -> None:
        held = self._inflight.get(worker.name, 0)
        for _, name in self._deadlines.first(held + REAP_LIMIT if held else 0):  # a dead worker's leases are the oldest
            holder = WorkerId.parse(self._request(RequestId.parse(name)).holder)
            if holder.name == worker.name and holder.boot != worker.boot:
                self._deadlines.put(name, EXPIRED)
        for name in sorted(self._lost.pop(worker.name, ())):
            request = RequestId.parse(name)
            if request.group in self._groups:
                self._lose_late(request, now)

    def _lose_late(self, request: RequestId, now: float) -> None:
        """Counts the loss of a lease that expired before its holder's death was known."""
        state = self._request(request)
        if state.state is State.QUEUED:
            self._dequeue(self._groups[request.group], request.index)
            state.losses += 1
            self._enqueue(self._groups[request.group], request.index)  # with the suspects, if it has become one
            if state.losses > self._max_losses:
                self._end(request, Event.FAIL, now)
        elif state.state is State.LEASED:
            state.losses += 1
