"""An explanation of a run: the parts of its worker-seconds, the best times possible, and what to do. Plain records."""

from typing import Literal, get_args

import msgspec

PartName = Literal[
    "boot",
    "prompts",
    "weights",
    "lost",
    "store",
    "prefill",
    "recompute",
    "decode_full",
    "decode_below_waiting",
    "decode_below",
    "tail",
    "idle",
]
PART_NAMES: tuple[PartName, ...] = get_args(PartName)
PART_LABELS: dict[PartName, str] = {
    "boot": "waiting for engines",
    "prompts": "waiting for prompts: none was in the queue yet",
    "weights": "changes of weights",
    "lost": "workers drained or lost",
    "store": "waiting for the store",
    "prefill": "computing contexts",
    "recompute": "computing contexts again, after moves",
    "decode_full": "decoding, all slots in use",
    "decode_below_waiting": "decoding, slots free while requests waited",
    "decode_below": "decoding, slots free, nothing waited",
    "tail": "idle in the tail: nothing waited any more",
    "idle": "idle for other reasons",
}
Cause = Literal[
    "slow_worker",
    "giant_request",
    "kv",
    "store",
    "boot",
    "prompts",
    "weights",
    "lost",
    "prefill",
    "recompute",
    "policy",
    "tail",
    "idle",
]


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


class Finding(msgspec.Struct, frozen=True):
    """One cause of lost time. `subject`: whom or what it names; `figure`: what the recommendation rests on, as `says`
    tells it in words; `worker_seconds`: what is at stake, as a `share` of all workers' time."""

    cause: Cause
    subject: str
    figure: float
    says: str
    advice: str
    worker_seconds: float
    share: float


class Explanation(msgspec.Struct, frozen=True):
    """`worker_seconds`: the workers' number times the seconds from the first request queued to the last one finished,
    which are `startup_seconds` and `makespan_seconds`; the known parts add up to it. `findings`: the largest first.

    `best`: None where it is not known, for the reason `no_best`; `notes`: what a reader has to know.
    """

    run: str
    state: str
    policy: str
    startup_seconds: float
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
