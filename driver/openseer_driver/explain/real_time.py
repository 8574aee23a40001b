"""Converts a run's times to real time: the job's clock leaves out the time in which the store did not answer."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import msgspec

from openseer_driver.report.trace import Fact, Trace, make_trace
from openseer_driver.run_lines import SampleLine

SET_BACK_SECONDS = 1.0
"""Tolerance in seconds, because the two clocks are not read at the same time: the driver's clock was set back if it
advanced less than the job's clock between two samples, by at least this difference."""


def in_real_time(trace: Trace) -> Trace:
    """The same run with all times in unix seconds of the driver's clock; unchanged if its samples lack these times."""
    dated = [sample for sample in trace.samples if sample.taken_at]
    if not dated:
        return trace
    real = _clock(dated)
    samples = tuple(msgspec.structs.replace(sample, at=real(sample.at)) for sample in trace.samples)
    facts = tuple(_moved(fact, real) for fact in trace.facts)
    return make_trace(trace.record, facts, samples, trace.failures)


def _clock(dated: Sequence[SampleLine]) -> Callable[[float], float]:
    """A function from the job's clock to the driver's: linear between two samples, with slope 1 outside of them."""
    job = list(accumulate((sample.at for sample in dated), max))
    driver = list(accumulate(_passed(dated, job), initial=dated[0].taken_at))

    def real(time: float) -> float:
        place = bisect_right(job, time)
        if not 0 < place < len(job):
            near = min(place, len(job) - 1)
            return driver[near] + time - job[near]
        before = place - 1
        passed = (time - job[before]) / (job[place] - job[before])
        return driver[before] + passed * (driver[place] - driver[before])

    return real


def _passed(dated: Sequence[SampleLine], job: Sequence[float]) -> Iterator[float]:
    """Seconds from each sample to the next: of the driver's clock, or of the job's clock if the former was set back."""
    for (before, after), (start, end) in zip(pairwise(dated), pairwise(job), strict=True):
        passed = after.taken_at - before.taken_at
        yield max(0.0, passed) if passed > end - start - SET_BACK_SECONDS else end - start


def _moved(fact: Fact, real: Callable[[float], float]) -> Fact:
    chunks = tuple(
        msgspec.structs.replace(chunk, claimed_at=real(chunk.claimed_at), ended_at=real(chunk.ended_at))
        for chunk in fact.chunks
    )
    started = None if fact.started_at is None else real(fact.started_at)
    times = {"enqueued_at": real(fact.enqueued_at), "finished_at": real(fact.finished_at)}
    return replace(fact, chunks=chunks, started_at=started, **times)
