"""Calculates the progress and speed of a run, for a progress display and for log lines."""

from collections import deque
from math import inf

from openseer_core.queue.time_left import seconds_left
from openseer_core.worker.time_metrics import mean_pace
from openseer_driver.run_lines import SampleLine

RATE_SECONDS = 15.0
"""Window of the mean speed, in seconds: long enough for a steady value, short enough to show a stall."""


class Pace:
    """Progress and speed from the samples of one session. `now`: seconds of any monotonic clock."""

    def __init__(self) -> None:
        self.has_begun = False
        """Whether the start-up is over (see SampleLine.has_begun)."""
        self._recent: deque[tuple[float, SampleLine]] = deque()

    @property
    def latest(self) -> SampleLine | None:
        """The newest sample; None before the first."""
        return self._recent[-1][1] if self._recent else None

    def take(self, sample: SampleLine, now: float) -> None:
        """Adds the newest sample."""
        self.has_begun = self.has_begun or sample.has_begun
        self._recent.append((now, sample))
        while len(self._recent) > 2 and self._recent[1][0] <= now - RATE_SECONDS:
            self._recent.popleft()

    def facts(self, *, workers: bool = False) -> list[str]:
        """The metrics as texts; needs a sample. `workers`: with the number of workers instead of the tokens so far."""
        sample = self._recent[-1][1]
        share = int(100 * sample.closed / sample.requests) if sample.requests else 0
        facts = [f"{sample.closed}/{sample.requests} requests", f"{share} %", f"{self._rate():,.0f} tok/s"]
        if workers:
            count = len(sample.workers)
            facts.append(f"{count} worker{'s' if count != 1 else ''}")
        else:
            facts.insert(2, f"{sample.tokens:,} tokens")
        facts.append(f"ETA {self._eta()}")
        if sample.none_waits:
            facts.append(f"no request waits; {sample.inflight} run{'s' if sample.inflight == 1 else ''}")
        return facts

    def worker_rate(self, name: str) -> float:
        """Tokens per second of one worker."""
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        old, new = (sample.workers[name].tokens if name in sample.workers else 0 for sample in (before, after))
        return max(0.0, (new - old) / (now - then)) if now > then else 0.0

    def _rate(self) -> float:
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return max(0.0, (after.tokens - before.tokens) / (now - then)) if now > then else 0.0

    def _eta(self) -> str:
        """The estimated time left at the latest speed; "–" if unknown, or below 0.5 s with unfinished requests."""
        sample = self._recent[-1][1]
        unfinished = sample.requests - sample.closed
        pace = mean_pace((worker.tokens, worker.seconds) for worker in sample.workers.values())
        left = seconds_left(sample.tokens_left, self._rate(), unfinished=unfinished, pace=pace or inf)
        return "–" if left is None or (unfinished > 0 and round(left) == 0) else duration(left)


def duration(seconds: float) -> str:
    """A duration as text: 0:48, 12:05, 1:02:03."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
