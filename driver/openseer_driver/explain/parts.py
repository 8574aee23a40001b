"""The seconds of a worker, part by part: what leases and samples tell of each moment, less what its counters tell."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from openseer_driver.explain.explanation import PART_NAMES, PartName
from openseer_driver.explain.presence import Absence, Seen
from openseer_driver.report.trace import ActiveClock, Trace

_Span = tuple[float, float]
Seconds = dict[PartName, float]
_LEASES, _WAITING, _BOOT, _LOST, _STOCKED, _SUBMITTED = range(6)
_DECODING: tuple[PartName, ...] = ("decode_full", "decode_below_waiting", "decode_below")


def waiting_spans(trace: Trace, clock: ActiveClock) -> list[_Span]:
    """When any request waited, in active seconds: queued, or given back, and not claimed yet."""
    spans: list[_Span] = []
    for fact in trace.facts:
        since = fact.enqueued_at
        for chunk in fact.chunks:
            spans.append((clock.at(since), clock.at(chunk.claimed_at)))
            since = chunk.ended_at
        if not fact.chunks:
            spans.append((clock.at(since), clock.at(fact.finished_at)))
    return _merged(sorted(spans))


def classify(
    leases: Iterable[_Span],
    waiting: Iterable[_Span],
    away: Iterable[Absence],
    *,
    slots: int,
    stocked: float,
    submitted: float,
    end: float,
) -> Seconds:
    """The seconds of one worker from 0 to `end`, each in one part; they add up to `end`.

    `leases`: when it held a request; `slots`: how many it may hold, 0 where that is not known; `stocked`: when the
    first request was in the store; `submitted`: when the last one had been queued, so that nothing more could come.
    """
    changes = [(time, _LEASES, step) for span in leases for time, step in zip(span, (1, -1), strict=True)]
    changes += [(time, _WAITING, step) for span in waiting for time, step in zip(span, (1, -1), strict=True)]
    for gap in away:
        kind = _BOOT if gap.kind == "boot" else _LOST
        changes += [(gap.start, kind, 1), (gap.end, kind, -1)]
    changes += [(stocked, _STOCKED, 1), (submitted, _SUBMITTED, 1), (end, _SUBMITTED, 0)]
    counts, sums, reach = [0] * 6, dict.fromkeys(PART_NAMES, 0.0), 0.0
    for time, which, step in sorted(changes):
        until = min(max(time, reach), end)
        if until > reach:
            sums[_part(counts, slots)] += until - reach
            reach = until
        counts[which] += step
    return sums


def _part(counts: Sequence[int], slots: int) -> PartName:
    if counts[_BOOT] or counts[_LOST]:
        return "boot" if counts[_BOOT] else "lost"
    if counts[_LEASES]:
        if 0 < slots <= counts[_LEASES]:
            return "decode_full"
        return "decode_below_waiting" if counts[_WAITING] else "decode_below"
    if not counts[_STOCKED]:
        return "prompts"
    return "tail" if counts[_SUBMITTED] and not counts[_WAITING] else "idle"


def counted(samples: Sequence[Seen]) -> dict[str, float]:
    """The sums of a worker's counters of seconds and contexts, over its boots."""
    sums: dict[str, float] = defaultdict(float)
    before: dict[str, float] = {}
    boot = samples[0].sample.boot if samples else ""
    for _, sample in samples:
        values = sample.contexts.values() | (sample.seconds.values() if sample.seconds is not None else {})
        began_anew = sample.boot != boot or any(value < before.get(name, 0.0) for name, value in values.items())
        for name, value in values.items():
            sums[name] += value if began_anew else value - before.get(name, 0.0)
        before, boot = values, sample.boot
    return sums


def divide(seconds: Seconds, counters: Mapping[str, float]) -> Seconds:
    """The same seconds, with those taken out of them that the worker's counters say more of.

    Each is taken from where it must have been counted, and never more than there is: counters are read once a second.
    """
    parts, found = dict(seconds), defaultdict(float, counters)
    _move(parts, "weights", found["weights"], ("idle", "tail"))
    _move(parts, "store", found["store_idle"], ("idle", "decode_below_waiting", "decode_below", "decode_full"))
    _move(parts, "store", found["store_below"], ("decode_below_waiting", "decode_below", "decode_full"))
    decoding = sum(parts[name] for name in _DECODING)
    computing = min(found["compute_seconds"], decoding)
    again = min(1.0, found["recomputed"] / found["computed"]) if found["computed"] else 0.0
    for name in _DECODING:
        share = computing * parts[name] / decoding if decoding else 0.0
        parts[name] -= share
        parts["prefill"] += share * (1 - again)
        parts["recompute"] += share * again
    return parts


def _move(parts: Seconds, name: PartName, amount: float, sources: Sequence[PartName]) -> None:
    for source in sources:
        taken = min(amount, parts[source])
        parts[source] -= taken
        parts[name] += taken
        amount -= taken


def _merged(spans: Sequence[_Span]) -> list[_Span]:
    """Those that touch made one; `spans` in order."""
    found: list[_Span] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > start:
            found.append((start, end))
    return found
