"""Replays groups that two workers share: the loss of drafts if the other worker's tokens arrive later.

Each worker runs half of each group with the product's drafter. It writes a checkpoint every interval and fetches the
other worker's tokens half an interval later. A step takes 33 ms, which is 30 tokens per second without drafts.
"""

from collections.abc import Sequence

import numpy as np

from support.drafters.replay import Draft, Ours, Outcome, Row, StepTime, replay
from support.tiny_rollouts import SampledGroup

INTERVALS = (0.25, 0.5, 1.0, 2.0)
MODEL = StepTime(fixed=0.033)
MOST_TOKENS = 16


class Worker:
    """Runs half of a group. `seconds`: its clock; `written`: tokens of each of its responses at its last checkpoint."""

    def __init__(self, rows: list[Row], slots: int, longest: int, interval: float) -> None:
        self.rows, self._running, self._interval = rows, list(rows), interval
        self._peer = Ours(slots, MOST_TOKENS, longest, MODEL)
        self.clock, self.know, self.close = self._peer.clock, self._peer.know, self._peer.close
        self.seconds = self._last = 0.0
        self.written = {row.index: 0 for row in rows}
        self._write_at, self._fetch_at = interval, 1.5 * interval
        self._known: dict[int, int] = {}
        for row in rows:
            self._peer.open(row)

    @property
    def is_busy(self) -> bool:
        return bool(self._running)

    def write(self) -> None:
        """Writes a checkpoint if it is due."""
        if self.seconds >= self._write_at:
            self._write_at += self._interval
            self.written = {row.index: row.known - row.start for row in self.rows}

    def fetch(self, other: "Worker") -> None:
        """Fetches the tokens that the other worker has written since the last fetch, if a fetch is due."""
        if self.seconds < self._fetch_at:
            return
        self._fetch_at += self._interval
        for row in other.rows:
            start, end = self._known.get(row.index, 0), other.written[row.index]
            tokens = row.tokens[row.start + start : row.start + end].astype(np.int32).tobytes()
            self._peer.drafter.append(str(row.group), row.index, start, tokens)
            self._known[row.index] = end

    def advance(self) -> Outcome:
        """Runs one step of all its responses."""
        outcome = replay(self, self._running, len(self._running), MODEL, steps=1)
        self._running = [row for row in self._running if not row.ended]
        self._last = outcome.seconds
        self.seconds += outcome.seconds
        return outcome

    def open(self, row: Row) -> None:
        """Does nothing, since all responses are open from the start."""

    def step(self, rows: list[Row], seconds: float) -> list[Draft]:
        """One step of the drafter, with the duration of this worker's last step."""
        return self._peer.step(rows, self._last)


def shared(groups: Sequence[SampledGroup], interval: float) -> dict[str, float]:
    """The rates over all groups, one after another; the worker that is behind makes the next step."""
    outcome = Outcome()
    for number, group in enumerate(groups):
        rows = [Row.of(number, index, group.prompt, response) for index, response in enumerate(group.responses)]
        longest = max(len(row.tokens) for row in rows)
        workers = [Worker(rows[first::2], len(rows), longest, interval) for first in range(2)]
        while busy := [worker for worker in workers if worker.is_busy]:
            behind = min(busy, key=lambda worker: worker.seconds)
            for worker in workers:
                worker.write()
            behind.fetch(workers[1 - workers.index(behind)])
            outcome.add(behind.advance())
    return outcome.rates()
