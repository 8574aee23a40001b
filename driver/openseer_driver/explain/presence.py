"""Finds the times at which the workers of a run were present, from their samples and leases."""

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
"""Age of a worker's heartbeat in the last sample, in seconds, from which the worker counts as ended. Workers send one
heartbeat per second."""


class Seen(NamedTuple):
    """One worker in one sample."""

    at: float
    sample: WorkerSample


class _Life(NamedTuple):
    """Times of the first and the last sign of a boot, in seconds of the trace's clock."""

    start: float
    end: float


def clock_of(trace: Trace) -> ActiveClock:
    """The clock of active seconds since the start of the run."""
    return ActiveClock(trace.began_at, trace.clock.pauses)


@dataclass(frozen=True, slots=True)
class Witness:
    """The records of one worker: its samples in order, and its leases."""

    samples: Sequence[Seen] = ()
    leases: Sequence[ChunkLine] = ()

    @property
    def has_boots(self) -> bool:
        """Whether the worker's boots are known. False if it was restarted and its samples, of an earlier release, have
        no boot."""
        return all(sample.boot for _, sample in self.samples) or len({chunk.worker for chunk in self.leases}) < 2

    @property
    def slots(self) -> int:
        """The worker's limit of running requests; 0 if no sample has it."""
        return max((sample.slots for _, sample in self.samples), default=0)


def witnesses(trace: Trace) -> dict[str, Witness]:
    """The records of every worker of a run, by name."""
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
    """The time at which the first request was in the store, in seconds of the store's clock: the end of rendering.

    Uses the samples, too, because drivers of earlier releases recorded the begin of rendering as the time of queueing.
    """
    empty = takewhile(lambda sample: not sample.requests, trace.samples)
    return min(trace.clock.origin, max((trace.queued_at, *(sample.at for sample in empty))))


def last_sample(trace: Trace) -> SampleLine | None:
    """The last sample before the end of the last request, after which workers exit. None without samples."""
    finished = max((fact.finished_at for fact in trace.facts), default=float("inf"))
    before = [sample for sample in trace.samples if sample.at <= finished]
    return before[-1] if before else trace.samples[0] if trace.samples else None


def is_present(last: SampleLine | None, name: str, boot: str) -> bool:
    """Whether the boot of worker `name` is alive in the sample `last`; True without a sample."""
    worker = last.workers.get(name) if last is not None else None
    return last is None or (worker is not None and worker.boot == boot and worker.silent < SILENT_SECONDS)


def absences(witness: Witness, clock: ActiveClock, end: float, *, present: Callable[[str], bool]) -> list[Absence]:
    """The worker's absences up to `end`, in active seconds of `clock`. `present`: whether a boot of the worker was
    alive when the last request finished."""
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
    """The times of each boot's signs of life: heartbeats, claims, and ends of leases by the worker itself."""
    signs: dict[str, list[float]] = defaultdict(list)
    for at, sample in witness.samples:
        signs[sample.boot].append(at - sample.silent)
    boots_are_told = "" not in signs
    for chunk in witness.leases:
        boot = chunk.worker.partition("#")[2] if boots_are_told else ""
        signs[boot] += (chunk.claimed_at,) if chunk.event in ("reap", "fail") else (chunk.claimed_at, chunk.ended_at)
    return signs
