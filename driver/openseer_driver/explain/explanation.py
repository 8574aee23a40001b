"""An explanation of a run: the parts of its worker-seconds, the best times possible, and what to do. Plain records."""

import msgspec

from openseer_core.explain.findings import Finding
from openseer_core.explain.parts import PartName


class TimePart(msgspec.Struct, frozen=True):
    """A part of all workers' time; None where the run's folder does not tell it, so that another part holds it."""

    name: PartName
    label: str
    worker_seconds: float | None
    share: float | None


class WorkerExplanation(msgspec.Struct, frozen=True):
    """One worker's seconds by part. `pace`: tokens per second that a response gained there, 0 where it is not known;
    `pace_ratio`: that to the pace at the other workers with as many responses at once, None where it is not known."""

    parts: dict[PartName, float]
    pace: float
    pace_ratio: float | None


class BestTimes(msgspec.Struct, frozen=True):
    """Makespans in seconds that were possible with the same lengths and healthy engines, simulated.

    `known`: under the best policy that knows no lengths beforehand, `policy`; `oracle`: under one that knows all;
    `bound`: no order needs less, for all engines are full to the end. `itself`: of the run's own policy, whose distance
    from the measured makespan is the run's trouble or the simulation's error. `unknown`: what is left out.
    """

    known: float
    policy: str
    oracle: float
    bound: float
    itself: float
    unknown: list[str] = []


class Explanation(msgspec.Struct, frozen=True):
    """`worker_seconds`: the workers' number times the seconds from the start of the run to the last request finished,
    which are `startup_seconds` and `makespan_seconds`; the known parts add up to it. `unqueued_seconds`: those of the
    start before the first request was queued. `findings`: the largest first.

    `best`: None where it is not known, for the reason `no_best`; `notes`: what a reader has to know.
    """

    run: str
    state: str
    policy: str
    startup_seconds: float
    unqueued_seconds: float
    makespan_seconds: float
    worker_seconds: float
    parts: list[TimePart]
    workers: dict[str, WorkerExplanation]
    findings: list[Finding]
    best: BestTimes | None
    no_best: str
    notes: list[str]

    def to_json(self) -> bytes:
        """One line."""
        return msgspec.json.encode(self) + b"\n"
