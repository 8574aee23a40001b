"""The page's view of the fleet: a lane per worker, and time series."""

from collections import deque
from collections.abc import Mapping, Sequence

from openseer_api.job.context import FleetSnapshot
from openseer_core.explain.findings import SLOW_ADVICE, slow_pace
from openseer_core.explain.paces import WorkerPace
from openseer_core.queue.batch import QueueLoad
from openseer_core.weights.loaded import why_not_loaded
from openseer_core.wire.page import MOST_POINTS, Series, WorkerLane
from openseer_core.worker.draft_metrics import summed
from openseer_core.worker.heartbeat import WorkerState, WorkerStatus

SILENT_SECONDS = 1.4
"""Age of the last heartbeat, in seconds, above which a worker is shown as silent. Workers send one per second."""
RATE_SECONDS = 5.0
"""Window of the token rates, in seconds."""
LEAST_RATE_SECONDS = 3.0
"""Shortest span of heartbeats from which a rate is computed, in seconds; tokens arrive in bursts."""
POINT_SECONDS = 1.0
"""Interval of the points of a series, in seconds."""
NO_PACE = WorkerPace(0.0, None)
NEARLY_FULL = 0.95
"""Fraction of a worker's KV blocks that is reserved, from which its KV cache counts as full."""


class TokenRates:
    """Tokens per second of each boot of a worker, from the counters of its heartbeats."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    def note(self, workers: Sequence[WorkerStatus]) -> None:
        """Adds the latest heartbeats; drops boots that are not among them."""
        boots = {(worker.name, worker.boot) for worker in workers}
        for gone in self._seen.keys() - boots:
            del self._seen[gone]
        for worker in workers:
            seen = self._seen.setdefault((worker.name, worker.boot), deque())
            tokens = worker.heartbeat.metrics.tokens
            if seen and seen[-1][0] < worker.seen_at - RATE_SECONDS:  # a gap: the job had no viewer
                seen.clear()
            if not seen or seen[-1][0] < worker.seen_at:
                seen.append((worker.seen_at, tokens))
            while len(seen) > 2 and seen[0][0] < worker.seen_at - RATE_SECONDS:
                seen.popleft()

    def of(self, worker: WorkerStatus) -> float | None:
        """Returns the tokens per second of a worker; None before its heartbeats span LEAST_RATE_SECONDS."""
        seen = self._seen.get((worker.name, worker.boot))
        if not seen:
            return None
        (began, first), (ended, last) = seen[0], seen[-1]
        if ended - began < LEAST_RATE_SECONDS:
            return None
        return round(max(0, last - first) / (ended - began), 1)


class FleetSeries:
    """Time series of the whole fleet: one point per second while the job has viewers."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, int, float | None, float, float | None]] = deque(maxlen=MOST_POINTS)

    def note(self, snapshot: FleetSnapshot, load: QueueLoad, rates: TokenRates) -> None:
        """Adds a point, unless the latest one is younger than POINT_SECONDS."""
        if self._points and snapshot.now - self._points[-1][0] < POINT_SECONDS:
            return
        fresh = [worker for worker in snapshot.workers if worker.is_fresh(snapshot.now)]
        known = [rate for one in fresh if not is_silent(one, snapshot.now) and (rate := rates.of(one)) is not None]
        tokens = round(sum(known), 1) if known or not fresh else None
        used = sum(worker.heartbeat.metrics.kv_used for worker in fresh) / len(fresh) if fresh else 0.0
        accepted = summed(worker.heartbeat.metrics.drafts for worker in fresh).acceptance_length or None
        waiting = sum(load.waiting.values())
        self._points.append((snapshot.now, load.running, waiting, tokens, round(used, 4), accepted))

    def columns(self) -> Series:
        """Returns the points as columns."""
        columns = list(zip(*self._points, strict=True)) or [()] * len(Series.model_fields)
        return Series.model_validate(
            {name: list(column) for name, column in zip(Series.model_fields, columns, strict=True)}
        )


def is_silent(worker: WorkerStatus, now: float) -> bool:
    """Whether a worker's last heartbeat is older than SILENT_SECONDS."""
    return now - worker.seen_at > SILENT_SECONDS


def lanes_of(
    snapshot: FleetSnapshot, load: QueueLoad, rates: TokenRates, paces: Mapping[str, WorkerPace]
) -> list[WorkerLane]:
    """Returns a lane for each worker, ordered by its number.
    `paces`: the pace of responses at each worker, by its name."""
    workers = sorted(snapshot.workers, key=lambda worker: (len(worker.name), worker.name))
    waiting = sum(load.waiting.values())
    return [_lane(worker, snapshot, rates.of(worker), paces.get(worker.name, NO_PACE), waiting) for worker in workers]


def slow_words(pace: WorkerPace) -> str:
    """Returns a sentence on a slow worker, with advice; "" if the pace is not slow."""
    says = slow_pace(pace)
    return f"{says}; {SLOW_ADVICE}" if says else ""


def _lane(
    worker: WorkerStatus, snapshot: FleetSnapshot, rate: float | None, pace: WorkerPace, waiting: int
) -> WorkerLane:
    heartbeat, metrics = worker.heartbeat, worker.heartbeat.metrics
    weights, silent = heartbeat.weights, is_silent(worker, snapshot.now)
    error = metrics.sick or (why_not_loaded(snapshot.fleet_spec, weights) if weights is not None else "") or ""
    return WorkerLane(
        worker=worker.name,
        state=heartbeat.state,
        version=weights.version if weights is not None else "",
        device=str(metrics.get("device", "")),
        node=str(metrics.get("node", "")),
        silent=silent,
        seen_seconds_ago=round(max(0.0, snapshot.now - worker.seen_at), 2),
        running=worker.inflight,
        slots=metrics.slots,
        kv_used=metrics.kv_used,
        tokens=metrics.tokens,
        tokens_per_second=0.0 if silent else rate,
        acceptance_length=metrics.drafts.acceptance_length or None,
        preemptions=metrics.preemptions,
        error=error,
        pace_ratio=pace.ratio,
        slow="" if silent else slow_words(pace),
        waits="" if error or silent else _waits(worker, waiting),
    )


def _waits(worker: WorkerStatus, waiting: int) -> str:
    """Returns the reason why a worker runs fewer requests than it has slots;
    "" if it runs as many, or none is known."""
    metrics, weights = worker.heartbeat.metrics, worker.heartbeat.weights
    match worker.heartbeat.state:
        case WorkerState.STARTING:
            return "starting"
        case WorkerState.DRAINING:
            return "draining: it gives back its requests and ends"
        case WorkerState.FOLLOWING:
            return "a rank of a gang; its leader works for it"
        case _:
            pass
    if weights is not None and weights.asleep:
        return "asleep: its GPU is lent to the trainer"
    if worker.inflight >= metrics.slots > 0:
        return ""
    if waiting and metrics.kv_reserved >= NEARLY_FULL:
        return "its KV cache is full"
    if not worker.inflight:
        return "cannot run the waiting requests" if waiting else "no request waits"
    return ""
