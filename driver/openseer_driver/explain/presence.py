"""When the workers of a run were there, by their samples and leases."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from openseer_core.explain.parts import Absence
from openseer_core.worker.heartbeat import WorkerState
from openseer_driver.report.trace import ActiveClock, Trace
from openseer_driver.run_lines import ChunkLine, SampleLine, WorkerSample

SILENT_SECONDS = 3.0
"""A worker whose last heartbeat in the last sample is older has ended; it sends one each second."""


class Seen(NamedTuple):
    """One worker in one sample."""

    at: float
    sample: WorkerSample


class _Life(NamedTuple):
    start: float
    end: float


def clock_of(trace: Trace) -> ActiveClock:
    """Active seconds since the run was started."""
    return ActiveClock(trace.began_at, trace.clock.pauses)


@dataclass(frozen=True, slots=True)
class Witness:
    """What is known of one worker: its samples, and its leases on requests, in order."""

    samples: Sequence[Seen] = ()
    leases: Sequence[ChunkLine] = ()

    @property
    def tells_boots(self) -> bool:
        """False where the worker was started again and its samples, of an earlier release, do not say when."""
        return all(sample.boot for _, sample in self.samples) or len({chunk.worker for chunk in self.leases}) < 2

    @property
    def slots(self) -> int:
        """How many requests it may hold; 0 where no sample says it."""
        return max((sample.slots for _, sample in self.samples), default=0)


def witnesses(trace: Trace) -> dict[str, Witness]:
    """Of every worker of a run."""
    samples: dict[str, list[Seen]] = defaultdict(list)
    leases: dict[str, list[ChunkLine]] = defaultdict(list)
    for sample in trace.samples:
        for name, worker in sample.workers.items():
            if worker.state == WorkerState.STARTING:
                continue
            samples[name].append(Seen(sample.at, worker))
    for fact in trace.facts:
        for chunk in fact.chunks:
            leases[chunk.worker_name].append(chunk)
    return {name: Witness(samples[name], leases[name]) for name in trace.worker_names}


def stocked_at(trace: Trace) -> float:
    """Seconds of the store's clock at which the first request was in the store: its driver renders prompts before.

    By the samples, too: drivers of earlier releases wrote down when they began to render.
    """
    empty = takewhile(lambda sample: not sample.requests, trace.samples)
    return min(trace.clock.origin, max((trace.queued_at, *(sample.at for sample in empty))))


def last_sample(trace: Trace) -> SampleLine | None:
    """Before the last request finished; then workers leave. None of a run without samples."""
    finished = max((fact.finished_at for fact in trace.facts), default=float("inf"))
    before = [sample for sample in trace.samples if sample.at <= finished]
    return before[-1] if before else trace.samples[0] if trace.samples else None


def is_present(last: SampleLine | None, name: str, boot: str) -> bool:
    """Whether a boot of a worker is alive in that sample; taken for granted without one."""
    worker = last.workers.get(name) if last is not None else None
    return last is None or (worker is not None and worker.boot == boot and worker.silent < SILENT_SECONDS)


def absences(witness: Witness, clock: ActiveClock, end: float, *, present: Callable[[str], bool]) -> list[Absence]:
    """Active seconds of `clock`, up to `end`, in which a worker was not there. `present`: whether that boot of it was
    when the last request finished."""
    gaps: list[Absence] = []
    reach = float("-inf")
    lives = [
        _Life(min(signs), float("inf") if present(boot) else max(signs)) for boot, signs in _signs(witness).items()
    ]
    for life in (*sorted(lives), _Life(float("inf"), float("inf"))):
        was_there = reach > float("-inf")
        resumed = any(reach <= pause_end <= life.start for _, pause_end in clock.pauses)
        start = clock.at(reach) if was_there else 0.0
        until = min(end, clock.at(life.start)) if life.start < float("inf") else end
        if until > start:
            gaps.append(Absence(start, until, "lost" if was_there and not resumed else "boot"))
        reach = max(reach, life.end)
    return gaps


def _signs(witness: Witness) -> dict[str, list[float]]:
    """When each boot told something: heartbeats, claims, and how requests ended."""
    signs: dict[str, list[float]] = defaultdict(list)
    for at, sample in witness.samples:
        signs[sample.boot].append(at - sample.silent)
    boots_are_told = "" not in signs
    for chunk in witness.leases:
        boot = chunk.worker.partition("#")[2] if boots_are_told else ""
        signs[boot] += (chunk.claimed_at,) if chunk.event in ("reap", "fail") else (chunk.claimed_at, chunk.ended_at)
    return signs
