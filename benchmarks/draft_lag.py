"""What drafts lose when siblings' tokens come later: groups that two workers share, by the interval of checkpoints.

    python benchmarks/draft_lag.py

Recorded and made-up responses are generated once more (support/replay.py), half of each group on either of two workers
with the product's drafter. Each worker writes a checkpoint every interval and fetches the other's half an interval
later; a step takes 33 ms, which is 30 tokens per second without drafts.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from drafting import Groups, made_up
from support.replay import Draft, Ours, Outcome, Row, StepTime, replay
from support.stamp import Stamp
from support.tiny_rollouts import sampled_groups

INTERVALS = (0.25, 0.5, 1.0, 2.0)
MODEL = StepTime(fixed=0.033)
MOST_TOKENS = 16


class Worker:
    """Half of a group. `seconds`: its clock; `written`: tokens of each of its responses at its last checkpoint."""

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
        """A checkpoint, when it is due."""
        if self.seconds >= self._write_at:
            self._write_at += self._interval
            self.written = {row.index: row.known - row.start for row in self.rows}

    def fetch(self, other: "Worker") -> None:
        """What the other has written since, when the next fetch is due."""
        if self.seconds < self._fetch_at:
            return
        self._fetch_at += self._interval
        for row in other.rows:
            start, end = self._known.get(row.index, 0), other.written[row.index]
            tokens = row.tokens[row.start + start : row.start + end].astype(np.int32).tobytes()
            self._peer.drafter.append(str(row.group), row.index, start, tokens)
            self._known[row.index] = end

    def advance(self) -> Outcome:
        """One step of all that runs."""
        outcome = replay(self, self._running, len(self._running), MODEL, steps=1)
        self._running = [row for row in self._running if not row.ended]
        self._last = outcome.seconds
        self.seconds += outcome.seconds
        return outcome

    def open(self, row: Row) -> None:
        """Nothing: all its responses are open from the start."""

    def step(self, rows: list[Row], seconds: float) -> list[Draft]:
        """One step of the drafter; it lasted as long as the last one of this worker."""
        return self._peer.step(rows, self._last)


def fleet(groups: Groups, interval: float) -> dict[str, float]:
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


def main() -> None:
    """Replays both kinds of groups at each interval and prints what came true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter responses")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    options = parser.parse_args()
    stamp = Stamp()
    kinds = {"sampled": sampled_groups()[: 6 if options.quick else None], "made-up": made_up(quick=options.quick)}
    found: dict[str, Any] = {
        name: {f"{interval:g} s": fleet(groups, interval) for interval in INTERVALS} for name, groups in kinds.items()
    }
    for name, rows in found.items():
        for interval, rates in rows.items():
            accepted, speed = rates["accepted_per_step"], rates["tokens_per_model_second"]
            print(f"{name:10}{interval:>8}: {accepted:.3f} accepted a step, {speed:.1f} tokens per model second")
    if options.json:
        options.json.write_text(json.dumps(found | stamp.fields(), indent=1) + "\n")


if __name__ == "__main__":
    main()
