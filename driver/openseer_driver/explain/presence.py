"""When the workers of a run were there, by their samples and leases."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from openseer_driver.report.trace import ActiveClock, Trace
from openseer_driver.run_lines import WorkerSample

SILENT_SECONDS = 3.0
"""A worker whose last heartbeat in the last sample is older has ended; it sends one each second."""


class Absence(NamedTuple):
    """Seconds of the run in which a worker was not there: `boot` before it first was, `lost` afterwards."""

    start: float
    end: float
    kind: Literal["boot", "lost"]


class Seen(NamedTuple):
    """One worker in one sample."""

    at: float
    sample: WorkerSample


class _Life(NamedTuple):
    start: float
    end: float


def clock_of(trace: Trace) -> ActiveClock:
    """Active seconds since the first request was queued."""
    queued = min((fact.enqueued_at for fact in trace.facts), default=trace.clock.origin)
    return ActiveClock(min(queued, trace.clock.origin), trace.clock.pauses)


def seen(trace: Trace, worker: str) -> list[Seen]:
    """A worker's samples in order, at seconds of the store's clock."""
    return [Seen(sample.at, sample.workers[worker]) for sample in trace.samples if worker in sample.workers]


def absences(trace: Trace, worker: str, clock: ActiveClock, end: float) -> list[Absence]:
    """Active seconds of `clock`, up to `end`, in which a worker was not there."""
    lives = sorted(_lives(trace, worker))
    gaps: list[Absence] = []
    reach = float("-inf")
    for life in (*lives, _Life(float("inf"), float("inf"))):
        was_there = reach > float("-inf")
        resumed = any(reach <= pause_end <= life.start for _, pause_end in clock.pauses)
        start = clock.at(reach) if was_there else 0.0
        until = min(end, clock.at(life.start)) if life.start < float("inf") else end
        if until > start:
            gaps.append(Absence(start, until, "lost" if was_there and not resumed else "boot"))
        reach = max(reach, life.end)
    return gaps


def _lives(trace: Trace, worker: str) -> Iterable[_Life]:
    """Each boot, from its first sign of life to its last; the last one to infinity where nothing says that it ended."""
    signs: dict[str, list[float]] = {}
    for at, sample in seen(trace, worker):
        signs.setdefault(sample.boot, []).append(at - sample.silent)
    if len(signs) == 1 and "" in signs:  # of an earlier release: boots are not told apart
        signs = {"": signs[""] + [time for times in _leases(trace, worker).values() for time in times]}
    else:
        for boot, times in _leases(trace, worker).items():
            signs.setdefault(boot, []).extend(times)
    last = _last_boot(trace, worker, signs)
    for boot, times in signs.items():
        yield _Life(min(times), float("inf") if boot == last else max(times))


def _leases(trace: Trace, worker: str) -> dict[str, list[float]]:
    """Times at which each boot claimed a request, or told the store how it ended."""
    found: dict[str, list[float]] = {}
    for fact in trace.facts:
        for chunk in fact.chunks:
            if chunk.worker_name == worker:
                told = () if chunk.event in ("reap", "fail") else (chunk.ended_at,)
                found.setdefault(chunk.worker.partition("#")[2], []).extend((chunk.claimed_at, *told))
    return found


def _last_boot(trace: Trace, worker: str, signs: dict[str, list[float]]) -> str | None:
    """The boot that was there when the last request finished; None where none was."""
    if not trace.samples:
        return max(signs, key=lambda boot: max(signs[boot]), default=None)
    finished = max((fact.finished_at for fact in trace.facts), default=float("inf"))
    before = [sample for sample in trace.samples if sample.at <= finished]
    last = (before or trace.samples)[-1].workers.get(worker)
    return last.boot if last is not None and last.silent < SILENT_SECONDS else None
