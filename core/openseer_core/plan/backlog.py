"""How many workers a backlog needs, in plain numbers: what is measured, what follows, and what keeps that steady."""

import math
from dataclasses import dataclass, replace

TARGET_SECONDS = 600.0
"""In so long what waits should be done, where neither a target nor a deadline is given."""
START_SECONDS = 120.0
"""A worker is taken to need so long until it works, while none has been seen to start."""
GROW_TOLERANCE = 0.1
"""The present workers may take this share longer than the target before others are added."""
MEASURE_STEP = 0.1
"""A measurement that differs less from the one before changes nothing."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and what is known of the fleet. `requests`: unfinished ones; `tokens`: expected of them.

    `length`: mean tokens of a response; `speed`: tokens per second of one worker that has enough to do;
    `start_seconds`: from a worker's creation until it takes requests. Each is 0 while it is not known. `workers`: how
    many are recommended.
    """

    requests: int = 0
    tokens: int = 0
    length: float = 0.0
    speed: float = 0.0
    start_seconds: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What keeps the number of workers from flapping (times: seconds since the epoch).

    `idle_since`: since when no request is unfinished; `lower_since`: since when fewer workers are recommended than
    there should be; `peak`: the most that were recommended since then.
    """

    idle_since: float | None = None
    lower_since: float | None = None
    peak: int = 0


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """The number of workers, what to remember, and when the number may change though nothing happens."""

    workers: int
    scaling: ScalingState
    due: float | None = None


def measured(known: float, found: float | None) -> float:
    """The newer of two measurements, but the known one while they hardly differ."""
    if found is None or found <= 0 or abs(found - known) <= MEASURE_STEP * known:
        return known
    return found


def target_seconds(asked: float | None, left: float | None, start_seconds: float) -> float:
    """In how long what waits should be done. `asked`: as the job says; `left`: until its deadline.

    Long enough that a worker works at least as long as it took to start; but no deadline is missed for that.
    """
    target = max(asked or (TARGET_SECONDS if left is None else left), 2 * start_seconds)
    return max(1.0, target if left is None else min(target, left))


def recommended(backlog: Backlog, present: int, target: float, unmeasured: int) -> int:
    """Workers that finish the backlog within `target` seconds, `present` of which are there already.

    A worker that is added loses its start-up time; none is added that would come too late. It grows with the backlog,
    and is never more than the unfinished requests. `unmeasured`: while no speed is known.
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
    """More workers at once. Fewer once that was so for the whole `window`, and then as many as its peak; or, when
    nothing was to do (`idle`) for the whole `patience`, as few as wanted. Windows are seconds."""
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
