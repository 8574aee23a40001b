"""The interval of a worker's checkpoints, and the speed of its responses.

The interval is spec.rollout.checkpointSeconds, or longer if that would overload the store.
"""

from collections import deque
from collections.abc import Mapping
from math import exp
from statistics import median

from openseer_core.errors import EngineError

LONGEST_SECONDS = 2.0
"""Limit of the interval, in seconds, because a worker's death costs each response the tokens of one interval."""
LEASE_SHARE = 1 / 3
"""Limit of the interval as a share of the lease, so that two calls in a row may fail before a lease expires."""
REQUESTS_PER_SECOND = 20_000
"""Most requests per second whose leases one store renews and to which it appends. One costs Redis 12 us while all data
are in the CPU's caches and about 24 us in a large fleet, so that 20,000/s take 24 to 48 % of Redis's core
(docs/decisions/0020)."""
WAITING_SHARE = 0.1
"""Limit of a call's duration as a share of the interval: at 0.25 s, a call longer than 25 ms extends the interval."""
CALLS = 8
"""The median duration of this many latest calls counts, so that a single slow call changes nothing."""


LATEST_SECONDS = 5.0
"""Time constant of the moving average of a worker's speed, in seconds. Shorter slowdowns should not move responses:
computing the context again elsewhere would take longer."""
KNOWN_SECONDS = 2.0
"""Duration of measurement after which a worker's speed counts as known, in seconds."""
LOAD_FACTOR = 2
"""When the number of responses grows or shrinks by this factor, the average is reset, because an engine generates more
slowly with more responses."""


class ResponsePace:
    """The speed of responses at this worker: an average over LATEST_SECONDS at about the present number of responses.

    A response counts for an interval only if it generated during all of it. Responses that were admitted, ended or
    prefilled during the interval are left out, because their mean speed is not the engine's.
    """

    def __init__(self) -> None:
        self.value = 0.0
        """Tokens per second of a response; 0 while unknown."""
        self._load = 0
        self._tokens = self._seconds = self._measured = 0.0
        self._lengths: Mapping[str, int] = {}
        self._at = 0.0

    def note(self, lengths: Mapping[str, int], now: float) -> None:
        """Records the number of tokens of each generating response, by key, at time `now` in seconds; may be empty."""
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
"""Stall limit, in seconds: an engine that has requests and makes no step for longer counts as failed."""


class Standstill:
    """Detects an engine that has requests and makes no steps."""

    def __init__(self) -> None:
        self._since = 0.0
        self._steps: float | int | str = -1

    def check(self, steps: float | int | str, now: float, *, has_work: bool) -> None:
        """Records the engine's number of `steps` at time `now`. Raises EngineError after STALL_SECONDS without one."""
        if steps != self._steps or not has_work:
            self._since, self._steps = now, steps
        if now - self._since > STALL_SECONDS:
            raise EngineError(f"the engine made no step for {STALL_SECONDS:.0f} s; its requests go to other workers")


class CheckpointPace:
    """The interval of one worker's checkpoints.

    It follows two quantities of each checkpoint: the number of leased requests of the fleet, at once, and the median
    duration of the last CALLS calls, which reflects any other cause of a slow store.
    """

    def __init__(self, shortest: float, lease_seconds: float) -> None:
        self._shortest = shortest
        self._longest = max(shortest, min(LONGEST_SECONDS, lease_seconds * LEASE_SHARE))
        self._latencies: deque[float] = deque(maxlen=CALLS)
        self._inflight = 0

    @property
    def seconds(self) -> float:
        """The present interval, in seconds: at least spec.rollout.checkpointSeconds; otherwise at most LONGEST_SECONDS
        and LEASE_SHARE of the lease."""
        latency = median(self._latencies) if self._latencies else 0.0
        wanted = max(self._shortest, self._inflight / REQUESTS_PER_SECOND, latency / WAITING_SHARE)
        return min(wanted, self._longest)

    def note(self, latency: float, inflight: int) -> None:
        """Records a checkpoint. `latency`: its duration in seconds; `inflight`: leased requests of the whole fleet."""
        self._latencies.append(latency)
        self._inflight = inflight
