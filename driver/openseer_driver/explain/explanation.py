"""Records of an explanation of a run: the parts of its worker-seconds, the best possible times, and findings."""

import msgspec

from openseer_core.explain.findings import Finding
from openseer_core.explain.parts import PartName


class TimePart(msgspec.Struct, frozen=True):
    """A part of all workers' time. `worker_seconds` and `share` are None if the run's folder does not contain them:
    another part then includes them."""

    name: PartName
    label: str
    worker_seconds: float | None
    share: float | None


class WorkerExplanation(msgspec.Struct, frozen=True):
    """One worker's seconds by part. `pace`: tokens per second of a response there, 0 if unknown; `pace_ratio`: ratio to
    the pace at the other workers with the same number of concurrent responses, None if unknown."""

    parts: dict[PartName, float]
    pace: float
    pace_ratio: float | None


class BestTimes(msgspec.Struct, frozen=True):
    """Simulated makespans, in seconds, with the same lengths and healthy engines.

    `known`: under `policy`, the faster of the recommended policy and the run's own; `oracle`: under a policy that knows
    all lengths; `bound`: a lower bound for every order; `itself`: under the run's own policy. A difference between
    `itself` and the measured makespan is a fault of the run or an error of the simulation. `unknown`: the limits of the
    simulation.
    """

    known: float
    policy: str
    oracle: float
    bound: float
    itself: float
    unknown: list[str] = []


class Explanation(msgspec.Struct, frozen=True):
    """The explanation of a run. `worker_seconds`: number of workers times the seconds from the start of the run to the
    last end of a request (`startup_seconds` + `makespan_seconds`); the known parts add up to it. `unqueued_seconds`:
    the seconds from the start to the first queued request. `findings`: sorted by worker-seconds, the most first.

    `best`: None if unknown; `no_best` is then the reason. `notes`: limits of the explanation, for readers.
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
        """The explanation as one line of JSON."""
        return msgspec.json.encode(self) + b"\n"
