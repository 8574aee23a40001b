"""Since when a worker's silence counts: a process that could not reach the store did not see heartbeats either."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openseer_core.worker.heartbeat import FRESH_SECONDS, WorkerStatus

GAP_SECONDS = 0.6 * FRESH_SECONDS
"""Time without a reply of the store, in seconds, after which silence is counted from the next reply."""


@dataclass(slots=True)
class Hearing:
    """The time since which this process has seen the heartbeats of a job's workers without a gap.

    A restarted store has another epoch, and may return older heartbeats than before.
    """

    _answered_at: float = float("-inf")
    _epoch: int = 0
    _since: float | None = None

    def answered(self, at: float, epoch: int) -> None:
        """Notes a reply of the store. `at`: seconds of the process's own clock."""
        if at - self._answered_at > GAP_SECONDS or epoch != self._epoch:
            self._since = None
        self._answered_at, self._epoch = at, epoch

    def heard(self, workers: Sequence[WorkerStatus], now: float) -> list[WorkerStatus]:
        """The workers with `seen_at` not before the start of gapless replies. `now`: the store's clock."""
        since = self._since = now if self._since is None else self._since
        return [replace(worker, seen_at=max(worker.seen_at, since)) for worker in workers]
