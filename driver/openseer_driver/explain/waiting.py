"""Finds the times at which requests of a run waited."""

from collections.abc import Sequence

from openseer_core.explain.parts import TimeSpan
from openseer_driver.report.trace import ActiveClock, Trace


def waiting_spans(trace: Trace, clock: ActiveClock) -> list[TimeSpan]:
    """The spans of time, in active seconds, in which at least one request waited for its next claim."""
    spans: list[TimeSpan] = []
    for fact in trace.facts:
        since = fact.enqueued_at
        for chunk in fact.chunks:
            spans.append((clock.at(since), clock.at(chunk.claimed_at)))
            since = chunk.ended_at
        if not fact.chunks:
            spans.append((clock.at(since), clock.at(fact.finished_at)))
    return _merged(sorted(spans))


def _merged(spans: Sequence[TimeSpan]) -> list[TimeSpan]:
    """Joins spans that touch; `spans` is sorted."""
    found: list[TimeSpan] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > start:
            found.append((start, end))
    return found
