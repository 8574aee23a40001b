"""From when on a worker's silence counts: a process that did not reach the store cannot tell who was silent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openseer_core.worker.heartbeat import FRESH_SECONDS, WorkerStatus

GAP_SECONDS = 0.6 * FRESH_SECONDS
"""After so long without an answer of the store, silence is counted from the next one."""


@dataclass(slots=True)
class Hearing:
    """What one process knows of when it could hear the workers of a job.

    A restarted store, which has another epoch, may have older heartbeats than it had.
    """

    _answered_at: float = float("-inf")
    _epoch: int = 0
    _since: float | None = None

    def answered(self, at: float, epoch: int) -> None:
        """Notes an answer of the store. `at`: seconds of the process's own clock."""
        if at - self._answered_at > GAP_SECONDS or epoch != self._epoch:
            self._since = None
        self._answered_at, self._epoch = at, epoch

    def heard(self, workers: Sequence[WorkerStatus], now: float) -> list[WorkerStatus]:
        """The workers as last heard of, none silent for longer than one could hear it. `now`: the store's clock."""
        since = self._since = now if self._since is None else self._since
        return [replace(worker, seen_at=max(worker.seen_at, since)) for worker in workers]
