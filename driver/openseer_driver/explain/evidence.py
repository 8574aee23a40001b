"""What a run's trace says of single causes: the response that ran alone, and the slots that the KV cache left empty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from openseer_core.manifest.fleet import RolloutSpec
from openseer_driver.explain.explanation import PartName
from openseer_driver.explain.paces import WorkerPace
from openseer_driver.report.trace import Fact, Trace

LONGER = 1.5
"""A response is a giant that is so many times as long as the longest one of all other groups."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What findings rest on: the trace, seconds of all workers and of each by part, and the paces of the workers.

    `whole`: seconds of all workers, from the first request queued to the last one finished.
    """

    trace: Trace
    whole: float
    sums: Mapping[PartName, float]
    by_worker: Mapping[str, Mapping[PartName, float]]
    paces: Mapping[str, WorkerPace]

    @property
    def policy(self) -> str:
        """Of the run."""
        return self.trace.record.setting("rollout", "policy") or RolloutSpec().policy

    @property
    def makespan(self) -> float:
        """Seconds from the first request claimed to the last one finished."""
        return self.trace.end

    def share(self, seconds: float) -> float:
        """Of all workers' time."""
        return seconds / self.whole if self.whole else 0.0

    def most(self, *names: PartName) -> tuple[str, float]:
        """The worker with the most of these parts, and its seconds."""
        seconds = {worker: sum(parts[name] for name in names) for worker, parts in self.by_worker.items()}
        worst = max(seconds, key=lambda worker: seconds[worker], default="")
        return worst, seconds.get(worst, 0.0)


@dataclass(frozen=True, slots=True)
class Giant:
    """The response that ended last. `times`: its length to the longest one of other groups; `alone`: seconds that it
    ran after all others had ended."""

    fact: Fact
    times: float
    alone: float


def giant(trace: Trace) -> Giant | None:
    """None where the response that ended last is no giant."""
    if len(trace.facts) < 2:
        return None
    *_, other, last = trace.facts
    longest = max((fact.length for fact in trace.facts if fact.group_key != last.group_key), default=0)
    if not longest or last.length < LONGER * longest:
        return None
    alone = trace.clock.at(last.finished_at) - trace.clock.at(other.finished_at)
    return Giant(last, last.length / longest, alone)


@dataclass(frozen=True, slots=True)
class EmptySlots:
    """What KV caches left empty. `share`: of all workers' samples in which requests waited, slots were free, and the
    blocks for one more were not; `used`, `slots`: of a worker, mean over those."""

    share: float = 0.0
    used: float = 0.0
    slots: float = 0.0


def empty_slots(trace: Trace) -> EmptySlots:
    """By the samples of the run; a response more is taken to need as many blocks as the mean of those that run."""
    looks, held = 0, list[tuple[int, int]]()
    for sample in trace.samples:
        if sample.closed >= sample.requests:
            continue
        looks += len(sample.workers)
        held += [
            (worker.inflight, worker.slots)
            for worker in sample.workers.values()
            if sample.waiting and 0 < worker.inflight < worker.slots and _is_full(worker.kv_reserved, worker.inflight)
        ]
    if not held:
        return EmptySlots()
    return EmptySlots(len(held) / looks, fmean(used for used, _ in held), fmean(slots for _, slots in held))


def _is_full(reserved: float, inflight: int) -> bool:
    return reserved * (1 + 1 / inflight) > 1


def named(names: Sequence[str]) -> str:
    """A few names in a sentence."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
