"""The boots of workers: repeated claims, and leases that ended by the death of their worker.

A lease that ends without a write of its holder is an expiry. With evidence of the holder's death it is also a loss.
"""

from openseer_core.ids import RequestId, WorkerId
from openseer_core.model.request_queue import EXPIRED, ChunkQueue
from openseer_core.model.state import claim_of
from openseer_core.queue.messages import REAP_LIMIT, Claim, ClaimQuery
from openseer_core.queue.states import Event, State

PAST_BOOTS = 16
"""Number of past boots that are kept per worker. A late heartbeat of one of them changes nothing."""


class LossQueue(ChunkQueue):
    """The queue of requests, with the boots of its workers."""

    def claim(self, worker: WorkerId, query: ClaimQuery, now: float) -> list[Claim]:
        """Leases requests. A repeat (same `query.number`) returns the leases of the first call that the worker still
        holds."""
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
        """Handles a heartbeat. Returns False, and changes nothing, if a later boot has the worker's name.

        A new boot is evidence that the previous boot died. The leases of the previous boot expire at once and count as
        losses; its leases that had expired before now count as losses, too. If the boot is the present one, a stall let
        its expired leases expire, and they do not count as losses.
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
        """Deletes the data of a worker that has left."""
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
        """Counts the loss of a lease that expired before there was evidence of its holder's death."""
        state = self._request(request)
        if state.state is State.QUEUED:
            self._dequeue(self._groups[request.group], request.index)
            state.losses += 1
            self._enqueue(self._groups[request.group], request.index)  # among the suspects, if it has become one
            if state.losses > self._max_losses:
                self._end(request, Event.FAIL, now)
        elif state.state is State.LEASED:
            state.losses += 1
