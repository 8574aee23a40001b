"""The number of workers that a backlog needs: measurements, the formula, and the damping."""

import math
from dataclasses import dataclass, replace

TARGET_SECONDS = 600.0
"""Time for the backlog, in seconds, where neither a target nor a deadline is given."""
START_SECONDS = 120.0
"""Assumed start time of a worker, in seconds, until one was measured."""
GROW_TOLERANCE = 0.1
"""Share by which the present workers may exceed the target before others are added."""
MEASURE_STEP = 0.1
"""Relative difference below which a new measurement is ignored."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog and the measurements of the fleet. `requests`: unfinished ones; `tokens`: expected of them.

    `length`: mean tokens of a response; `speed`: tokens per second of one busy worker;
    `start_seconds`: from a worker's creation until it takes requests. Each is 0 while unknown. `workers`: the
    recommended number.
    """

    requests: int = 0
    tokens: int = 0
    length: float = 0.0
    speed: float = 0.0
    start_seconds: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class ScalingState:
    """Damping of the number of workers (times: seconds since the epoch).

    `idle_since`: since when no request is unfinished; `lower_since`: since when fewer workers are recommended than
    present; `peak`: the largest recommendation since then.
    """

    idle_since: float | None = None
    lower_since: float | None = None
    peak: int = 0


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """The number of workers, the state to remember, and when the number may change without an event."""

    workers: int
    scaling: ScalingState
    due: float | None = None


def measured(known: float, found: float | None) -> float:
    """The new measurement, or the known one while they hardly differ."""
    if found is None or found <= 0 or abs(found - known) <= MEASURE_STEP * known:
        return known
    return found


def target_seconds(asked: float | None, left: float | None, start_seconds: float) -> float:
    """The time for the backlog, in seconds. `asked`: from the job; `left`: until its deadline.

    At least twice a worker's start time, so that the start pays, but never past the deadline.
    """
    target = max(asked or (TARGET_SECONDS if left is None else left), 2 * start_seconds)
    return max(1.0, target if left is None else min(target, left))


def recommended(backlog: Backlog, present: int, target: float, unmeasured: int) -> int:
    """The number of workers that finish the backlog within `target` seconds; `present` of them exist already.

    An added worker loses its start time; none is added that would start too late. The number grows with the backlog,
    and is at most the number of unfinished requests. `unmeasured`: the number while no speed is known.
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
    """Raises the number of workers at once. Lowers it after fewer were wanted for the whole `window`, to the peak
    wanted in it; or, if the job was `idle` for the whole `patience`, to `wanted`. Both are in seconds."""
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
