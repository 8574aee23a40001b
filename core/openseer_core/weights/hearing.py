"""Corrects the ages of heartbeats after a gap, in which this process could not read the store and its heartbeats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openseer_core.worker.heartbeat import FRESH_SECONDS, WorkerStatus

GAP_SECONDS = 0.6 * FRESH_SECONDS
"""Limit of the time between two replies of the store, in seconds; a longer time is a gap."""


@dataclass(slots=True)
class Hearing:
    """The time since which a job's store has replied to this process without a gap.

    A new epoch of the store also begins a gap, because a restarted store may return older heartbeats than before.
    """

    _answered_at: float = float("-inf")
    _epoch: int = 0
    _since: float | None = None

    def answered(self, at: float, epoch: int) -> None:
        """Notes a reply of the store. `at`: seconds of the process's monotonic clock; `epoch`: of the store."""
        if at - self._answered_at > GAP_SECONDS or epoch != self._epoch:
            self._since = None
        self._answered_at, self._epoch = at, epoch

    def heard(self, workers: Sequence[WorkerStatus], now: float) -> list[WorkerStatus]:
        """The workers, with `seen_at` not before the end of the latest gap. `now`: seconds of the store's clock."""
        since = self._since = now if self._since is None else self._since
        return [replace(worker, seen_at=max(worker.seen_at, since)) for worker in workers]
