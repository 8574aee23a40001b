"""Draft metrics of the fleet, over its workers' lifetime or over a batch."""

from collections.abc import Sequence

from openseer_core.worker.draft_metrics import DraftMetrics, summed
from openseer_core.worker.heartbeat import WorkerStatus

KNOWN_BATCHES = 256
"""Limit of batches whose initial counters are kept."""

_Boot = tuple[str, str]


def fleet_counts(workers: Sequence[WorkerStatus]) -> DraftMetrics:
    """Returns the sum of the present workers' counters since their start."""
    return summed(worker.heartbeat.metrics.drafts for worker in workers)


class DraftsOfBatches:
    """Computes the fleet's draft metrics from the first call of `of` for a batch to the batch's end. Drafts of
    concurrent batches count for each of them.

    A worker sends one heartbeat per second, so its drafts of a batch's last second may count for the next batch.
    """

    def __init__(self) -> None:
        self._begun: dict[int, dict[_Boot, DraftMetrics]] = {}
        self._ended: dict[int, DraftMetrics] = {}

    def of(self, batch: int, workers: Sequence[WorkerStatus], *, ended: bool) -> DraftMetrics:
        """Returns the draft metrics of a batch so far, or until its end;
        zero for a batch that ended before the first call."""
        if batch in self._ended:
            return self._ended[batch]
        now = {(worker.name, worker.boot): worker.heartbeat.metrics.drafts for worker in workers}
        if batch not in self._begun:
            self._make_room()
            self._begun[batch] = now
        begun = self._begun[batch]
        counts = summed(counts.since(begun.get(boot, DraftMetrics())) for boot, counts in now.items())
        if ended:
            self._ended[batch] = counts
        return counts

    def _make_room(self) -> None:
        while len(self._begun) >= KNOWN_BATCHES:
            oldest = next(iter(self._begun))
            del self._begun[oldest]
            self._ended.pop(oldest, None)
