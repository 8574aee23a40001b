"""Computes the number of workers for a backlog: from measurements, by a formula, with damping."""

import math
from dataclasses import dataclass, replace

TARGET_SECONDS = 600.0
"""Target time for the backlog, in seconds, for a job without a target or deadline of its own."""
START_SECONDS = 120.0
"""Start time of a worker, in seconds, that is assumed until one was measured."""
GROW_TOLERANCE = 0.1
"""Share of the target time by which the present workers may exceed it before workers are added."""
MEASURE_STEP = 0.1
"""Relative difference below which a new measurement is ignored."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog of a job, and the measurements of its fleet.

    `requests`: number of unfinished requests; `tokens`: the tokens expected of them; `length`: mean tokens of a
    response; `speed`: tokens per second of one busy worker; `start_seconds`: time from a worker's creation until it
    takes requests. The last three are 0 while unknown. `workers`: the recommended number of workers.
    """

    requests: int = 0
    tokens: int = 0
    length: float = 0.0
    speed: float = 0.0
    start_seconds: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class ScalingState:
    """The state of the damping of the number of workers.

    `idle_since`: time since which no request is unfinished; `lower_since`: time since which fewer workers are
    recommended than present; `peak`: the largest recommendation since `lower_since`. Times are seconds since the epoch,
    None if the condition does not hold.
    """

    idle_since: float | None = None
    lower_since: float | None = None
    peak: int = 0


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """The number of workers, and the state to remember. `due`: time at which the number may change without an event
    (seconds since the epoch), None for none."""

    workers: int
    scaling: ScalingState
    due: float | None = None


def measured(known: float, found: float | None) -> float:
    """`found`, unless it is None, not positive, or differs from `known` by a share of at most MEASURE_STEP; then
    `known`."""
    if found is None or found <= 0 or abs(found - known) <= MEASURE_STEP * known:
        return known
    return found


def target_seconds(asked: float | None, left: float | None, start_seconds: float) -> float:
    """The target time for the backlog, in seconds. `asked`: the target in the job's spec; `left`: the part of the time
    until the job's deadline that is planned for the backlog; None for none.

    The target is at least twice a worker's start time, so that a start is worth its time, but never exceeds `left`.
    """
    target = max(asked or (TARGET_SECONDS if left is None else left), 2 * start_seconds)
    return max(1.0, target if left is None else min(target, left))


def recommended(backlog: Backlog, present: int, target: float, unmeasured: int) -> int:
    """The number of workers that finish the backlog within `target` seconds; `present`: the number of existing workers.

    An added worker contributes only after its start time; a worker that would start too late is not added. The number
    grows with the backlog, and is at most the number of unfinished requests. `unmeasured`: least number while no speed
    is known.
    """
    if not backlog.requests:
        return 0
    if not backlog.speed:
        return min(backlog.requests, max(1, present, unmeasured))
    seconds = backlog.tokens / backlog.speed
    needed = math.ceil(seconds / target)
    useful = target - (backlog.start_seconds or START_SECONDS)
    if needed > present:
        over = seconds - present * target
        tolerated = over <= GROW_TOLERANCE * present * target
        needed = present if tolerated or useful <= 0 else present + math.ceil(over / useful)
    return min(backlog.requests, max(1, needed))


def decide(
    wanted: int, present: int, scaling: ScalingState, now: float, *, idle: bool, window: float, patience: float
) -> ScalingDecision:
    """Decides the number of workers. A larger `wanted` applies at once.

    If fewer than `present` were wanted for `window` seconds, the number falls to the largest number wanted in that
    time. If the job was `idle` for `patience` seconds, it falls to `wanted`.
    """
    if idle:
        since = now if scaling.idle_since is None else scaling.idle_since
        due = since + patience
        if wanted >= present or now >= due:
            return ScalingDecision(wanted, ScalingState(idle_since=since))
        return ScalingDecision(present, ScalingState(idle_since=since), due)
    if wanted >= present:
        return ScalingDecision(wanted, ScalingState())
    since = now if scaling.lower_since is None else scaling.lower_since
    peak = max(wanted, scaling.peak)
    if now >= since + window:
        return ScalingDecision(peak, ScalingState())
    return ScalingDecision(present, replace(scaling, idle_since=None, lower_since=since, peak=peak), since + window)
