"""How often a worker writes a checkpoint, and how fast its responses grow.

A checkpoint is written as often as the job says, less often where that is too much for the store.
"""

from collections import deque
from collections.abc import Mapping
from math import exp
from statistics import median

from openseer_core.errors import EngineError

LONGEST_SECONDS = 2.0
"""Longest interval between two checkpoints, and so most of a response that a worker's death costs."""
LEASE_SHARE = 1 / 3
"""Nor is the interval longer than so much of a lease: two calls in a row may fail before others take the work."""
REQUESTS_PER_SECOND = 20_000
"""Most requests of a fleet that one store renews and appends to per second: each costs Redis 12 us while all is in its
caches, and about twice as much in a large fleet (docs/decisions/0020)."""
WAITING_SHARE = 0.1
"""Most of the interval that a call to the store takes: with 0.25 s, one longer than 25 ms is a sign of a full store."""
CALLS = 8
"""The median of so many latest calls counts, so that a single slow one changes nothing."""


LATEST_SECONDS = 5.0
"""A worker's speed is that of about so many latest seconds: what is shorter passes before a response that moved for it
has read its context elsewhere."""
KNOWN_SECONDS = 2.0
"""Seconds of measuring after which a worker's speed counts as known."""
LOAD_FACTOR = 2
"""An engine is slower with more responses. With so many times as many, or as few, its speed is measured anew."""


class ResponsePace:
    """How fast responses grow at this worker, over the latest LATEST_SECONDS with about as many as there are now.

    A response counts for an interval that it generated in from end to end: one that came, went or computed its context
    meanwhile would make the worker look slower or faster than its engine is.
    """

    def __init__(self) -> None:
        self.value = 0.0
        """Tokens per second that a response gains; 0 while it is not known."""
        self._load = 0
        self._tokens = self._seconds = self._measured = 0.0
        self._lengths: Mapping[str, int] = {}
        self._at = 0.0

    def note(self, lengths: Mapping[str, int], now: float) -> None:
        """Tokens of each response that generates, at the time `now`, in seconds; none: only time has passed."""
        lasted = self._lengths.keys() & lengths.keys()
        if lasted:
            if not self._load <= LOAD_FACTOR * len(lasted) <= LOAD_FACTOR**2 * self._load:
                self._load = len(lasted)
                self._tokens = self._seconds = self._measured = 0.0
            seconds = now - self._at
            kept = exp(-seconds / LATEST_SECONDS)
            self._tokens = kept * self._tokens + sum(lengths[key] - self._lengths[key] for key in lasted)
            self._seconds = kept * self._seconds + len(lasted) * seconds
            self._measured += seconds
            self.value = self._tokens / self._seconds if self._measured >= KNOWN_SECONDS else 0.0
        self._lengths, self._at = lengths, now


STALL_SECONDS = 120.0
"""An engine that has work and makes no step for so long is given up; its leases are no longer renewed."""


class Standstill:
    """Since when an engine that has work makes no step."""

    def __init__(self) -> None:
        self._since = 0.0
        self._steps: float | int | str = -1

    def check(self, steps: float | int | str, now: float, *, has_work: bool) -> None:
        """`steps`: that the engine has made. Raises EngineError after STALL_SECONDS."""
        if steps != self._steps or not has_work:
            self._since, self._steps = now, steps
        if now - self._since > STALL_SECONDS:
            raise EngineError(f"the engine made no step for {STALL_SECONDS:.0f} s; its work goes to other workers")


class CheckpointPace:
    """The interval between one worker's checkpoints, from what it learns by each.

    A fleet that is too large for a short interval finds it at once, by its number of requests; a store that is slow for
    any other reason shows it in the time of its answers.
    """

    def __init__(self, shortest: float, lease_seconds: float) -> None:
        self._shortest = shortest
        self._longest = max(shortest, min(LONGEST_SECONDS, lease_seconds * LEASE_SHARE))
        self._latencies: deque[float] = deque(maxlen=CALLS)
        self._inflight = 0

    @property
    def seconds(self) -> float:
        """The interval now: at least spec.rollout.checkpointSeconds, at most the named limits."""
        latency = median(self._latencies) if self._latencies else 0.0
        wanted = max(self._shortest, self._inflight / REQUESTS_PER_SECOND, latency / WAITING_SHARE)
        return min(wanted, self._longest)

    def note(self, latency: float, inflight: int) -> None:
        """A checkpoint took so many seconds; `inflight`: leased requests of the whole fleet."""
        self._latencies.append(latency)
        self._inflight = inflight
