"""Places the leases of each worker in rows without overlaps: a viewer draws overlapping slices as nested."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

from openseer_core.queue.messages import APPEND
from openseer_driver.report.trace import Fact
from openseer_driver.run_lines import ChunkLine


@dataclass(slots=True)
class PlacedLease:
    """A lease in `row` of its worker. `start`, `end`: microseconds, at least 1 apart, so that an arrow can begin within
    the lease; `number`: position among the request's leases, from 1; `waited`: seconds that the request waited for
    this lease."""

    fact: Fact
    chunk: ChunkLine
    number: int
    start: int
    end: int
    waited: float
    row: int = 0

    @property
    def is_last(self) -> bool:
        """Whether this is the request's last lease."""
        return self.chunk is self.fact.chunks[-1]


def placed_leases(facts: Iterable[Fact], at: Callable[[float], int]) -> dict[str, list[PlacedLease]]:
    """The leases of each worker, ordered by start. `at`: converts a time of the run to microseconds."""
    by_worker: dict[str, list[PlacedLease]] = defaultdict(list)
    for fact in facts:
        since, number = fact.enqueued_at, 0
        for chunk in fact.chunks:
            if chunk.event != APPEND:
                number += 1
                start = at(chunk.claimed_at)
                end = max(start + 1, at(chunk.ended_at))
                waited = max(0.0, chunk.claimed_at - since)
                by_worker[chunk.worker_name].append(PlacedLease(fact, chunk, number, start, end, waited))
            since = chunk.ended_at
    for leases in by_worker.values():
        leases.sort(key=lambda lease: (lease.start, lease.end))
        _place(leases)
    return by_worker


def _place(leases: Iterable[PlacedLease]) -> None:
    """Puts each lease into the lowest row that is free at its start."""
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    for lease in leases:
        while busy and busy[0][0] <= lease.start:
            heappush(free, heappop(busy)[1])
        lease.row = heappop(free) if free else len(busy)
        heappush(busy, (lease.end, lease.row))
