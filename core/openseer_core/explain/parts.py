"""Divides a worker's seconds into parts: first by its leases and absences, then by its counters."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

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
    "prompts": "waiting for prompts: the queue was empty",
    "weights": "changes of weights",
    "lost": "workers drained or lost",
    "store": "waiting for the store",
    "prefill": "computing contexts",
    "recompute": "computing contexts again, after moves",
    "decode_full": "decoding, all slots in use",
    "decode_below_waiting": "decoding, slots free while requests waited",
    "decode_below": "decoding, slots free, no request waited",
    "tail": "idle in the tail: no request waited",
    "idle": "idle for other reasons",
}
TimeSpan = tuple[float, float]
Seconds = dict[PartName, float]
LEASES, WAITING, BOOT, LOST, STOCKED, SUBMITTED = range(6)
"""Indices of the counts at a time: leases of the worker; waiting requests; 1 if the worker has not started yet; 1 if it
is lost; 1 if the first request is in the store; 1 if the last request is in the store."""
DECODING: tuple[PartName, ...] = ("decode_full", "decode_below_waiting", "decode_below")


class Absence(NamedTuple):
    """A time without the worker, in seconds of the run. `kind`: boot before its first start, lost afterwards."""

    start: float
    end: float
    kind: Literal["boot", "lost"]


class WorkerParts:
    """Adds up the seconds of one worker by part, from `start` on, change by change. `slots`: the worker's limit of
    running requests, 0 if unknown; `counts`: the present counts, by index (LEASES, WAITING, …)."""

    def __init__(self, start: float = 0.0, slots: int = 0) -> None:
        self.counts = [0] * 6
        self.slots = slots
        self._sums: Seconds = dict.fromkeys(PART_NAMES, 0.0)
        self._reach = start

    def change(self, time: float, which: int, step: int) -> None:
        """Adds `step` to count `which` at `time`. A time before the latest one counts as the latest."""
        self.pass_to(time)
        self.counts[which] += step

    def pass_to(self, time: float) -> None:
        """Adds the seconds since the latest time, up to `time`, to the present part."""
        if time > self._reach:
            self._sums[self._part()] += time - self._reach
            self._reach = time

    def until(self, time: float) -> Seconds:
        """The seconds by part up to `time`; each second is in one part."""
        found = dict(self._sums)
        found[self._part()] += max(0.0, time - self._reach)
        return found

    def _part(self) -> PartName:
        counts = self.counts
        if counts[BOOT] or counts[LOST]:
            return "boot" if counts[BOOT] else "lost"
        if counts[LEASES]:
            if 0 < self.slots <= counts[LEASES]:
                return "decode_full"
            return "decode_below_waiting" if counts[WAITING] else "decode_below"
        if not counts[STOCKED]:
            return "prompts"
        return "tail" if counts[SUBMITTED] and not counts[WAITING] else "idle"


def classify(
    leases: Iterable[TimeSpan],
    waiting: Iterable[TimeSpan],
    away: Iterable[Absence],
    *,
    slots: int,
    stocked: float,
    submitted: float,
    end: float,
) -> Seconds:
    """The seconds of one worker by part, from 0 to `end`; they add up to `end`.

    All times are in seconds of the run. `leases`: the times of its leases; `waiting`: the times with waiting requests;
    `away`: the times without the worker; `slots`: its limit of running requests, 0 if unknown; `stocked`: time at which
    the first request was in the store; `submitted`: time at which the last request was in the store.
    """
    changes = [(time, LEASES, step) for span in leases for time, step in zip(span, (1, -1), strict=True)]
    changes += [(time, WAITING, step) for span in waiting for time, step in zip(span, (1, -1), strict=True)]
    for gap in away:
        kind = BOOT if gap.kind == "boot" else LOST
        changes += [(gap.start, kind, 1), (gap.end, kind, -1)]
    changes += [(stocked, STOCKED, 1), (submitted, SUBMITTED, 1)]
    parts = WorkerParts(slots=slots)
    for time, which, step in sorted(changes):
        parts.change(min(time, end), which, step)
    parts.pass_to(end)
    return parts.until(end)


def divide(seconds: Seconds, counters: Mapping[str, float]) -> Seconds:
    """Moves seconds for which the worker's counters state a cause into the part of that cause; the sum stays the same.

    They are subtracted from the parts that can contain them. A counter may exceed these parts, because counters are
    read only once a second; then the surplus is ignored.
    """
    parts, found = dict(seconds), defaultdict(float, counters)
    _move(parts, "weights", found["weights"], ("idle", "tail"))
    _move(parts, "store", found["store_idle"], ("idle", "decode_below_waiting", "decode_below", "decode_full"))
    _move(parts, "store", found["store_below"], ("decode_below_waiting", "decode_below", "decode_full"))
    decoding = sum(parts[name] for name in DECODING)
    computing = min(found["compute_seconds"], decoding)
    again = min(1.0, found["recomputed"] / found["computed"]) if found["computed"] else 0.0
    for name in DECODING:
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
