"""A run as trace events: the workers' leases, moves of responses, stalls of workers, and the fleet's counts.

The form is the Trace Event Format of Chromium, which Perfetto reads: `X` is a slice, `s` and `f` are the ends of an
arrow, `C` is a counter, `M` a name. `pid` is a worker, or the fleet; `tid` one of its rows. Times are microseconds.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from openseer_core.queue.batch import tail_start
from openseer_core.worker.heartbeat import WORKING_STATES
from openseer_driver.report.trace import Trace
from openseer_driver.run_lines import WorkerSample
from openseer_driver.traces.leases import PlacedLease, placed_leases

FLEET = 1
"""`pid` of the fleet; workers have the numbers that follow."""
FIRST_ROW = -1
"""First row of a process: the fleet's phases, or a worker's stalls. Rows of leases follow, from 0."""
ROWS = 1_000_000
"""Limit of rows of a process. Each `tid` is unique in the file, since viewers may merge rows with equal `tid`."""
STALLED = 0.5
"""A worker is shown as stalled if it waited for more than this fraction of the time between two samples."""
SILENT_SECONDS = 3.0
"""Age of the last heartbeat, in seconds, above which a worker is shown as silent; it sends one each second."""

TraceEvent = dict[str, Any]


class RunEvents:
    """The events of a run. While the run is in progress, these are the events of the results so far."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        signs = [fact.enqueued_at for fact in trace.facts] + [sample.at for sample in trace.samples[:1]]
        self.begin = min(signs, default=0.0)
        """Seconds of the run's clock at which the file begins."""
        self.workers = trace.worker_names
        self._pids = {name: FLEET + 1 + place for place, name in enumerate(self.workers)}
        self._leases = placed_leases(trace.facts, self._at)
        self.leases = sum(map(len, self._leases.values()))

    def all(self) -> Iterator[TraceEvent]:
        """Yields the events of the fleet, then those of each worker, then the arrows of moves."""
        yield from _names(FLEET, "fleet", {FIRST_ROW: "phases"})
        yield from self._phases()
        yield from self._fleet_counters()
        for name, pid in self._pids.items():
            leases = self._leases.get(name, [])
            rows = max((lease.row for lease in leases), default=-1) + 1
            yield from _names(pid, name, {FIRST_ROW: "stalls"} | {row: f"row {row}" for row in range(rows)})
            yield from self._of_worker(name, pid)
            yield from (_slice_of(lease, pid) for lease in leases)
        for number, (before, after) in enumerate(self.moves(), start=1):
            yield self._arrow("s", number, before, before.end - 1)
            yield self._arrow("f", number, after, after.start) | {"bp": "e"}

    def moves(self) -> Iterator[tuple[PlacedLease, PlacedLease]]:
        """Pairs of consecutive leases of a request on different workers."""
        requests: dict[int, list[PlacedLease]] = {}
        for leases in self._leases.values():
            for lease in leases:
                if len(lease.fact.chunks) > 1:
                    requests.setdefault(id(lease.fact), []).append(lease)
        for leases in requests.values():
            leases.sort(key=lambda lease: lease.number)
            for before, after in pairwise(leases):
                if before.chunk.worker_name != after.chunk.worker_name:
                    yield before, after

    def _at(self, time: float) -> int:
        return max(0, round((time - self.begin) * 1e6))

    def _slice(self, pid: int, name: str, start: float, end: float) -> TraceEvent:
        at = self._at(start)
        tid, length = _tid(pid, FIRST_ROW), max(1, self._at(end) - at)
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": at, "dur": length}

    def _arrow(self, end: str, number: int, lease: PlacedLease, at: int) -> TraceEvent:
        pid = self._pids[lease.chunk.worker_name]
        return {
            "ph": end,
            "cat": "move",
            "name": "move",
            "id": number,
            "pid": pid,
            "tid": _tid(pid, lease.row),
            "ts": at,
        }

    def _phases(self) -> Iterator[TraceEvent]:
        """Slices of the fleet: start-up, run, tail (the last tenth of requests), and pauses between sessions."""
        facts, clock = self._trace.facts, self._trace.clock
        if not facts:
            return
        ends = sorted(fact.finished_at for fact in facts)
        tail, last = max(clock.origin, tail_start(ends)), ends[-1]
        yield from self._phase("start-up", self.begin, clock.origin)
        yield from self._phase("run", clock.origin, tail)
        yield from self._phase("tail", tail, last)
        for start, end in clock.pauses:
            yield self._slice(FLEET, "paused", start, end)

    def _phase(self, name: str, start: float, end: float) -> Iterator[TraceEvent]:
        """The slices of a phase, without the pauses."""
        for pause_start, pause_end in self._trace.clock.pauses:
            if start < pause_end and pause_start < end:
                if start < pause_start:
                    yield self._slice(FLEET, name, start, pause_start)
                start = pause_end
        if start < end:
            yield self._slice(FLEET, name, start, end)

    def _fleet_counters(self) -> Iterator[TraceEvent]:
        samples = self._trace.samples
        for before, sample in zip((None, *samples), samples, strict=False):
            counts = {"running": sample.inflight, "waiting": sample.waiting}
            yield self._counter(FLEET, "requests", sample.at, counts)
            if before is not None and sample.at > before.at:
                rate = max(0, sample.tokens - before.tokens) / (sample.at - before.at)
                yield self._counter(FLEET, "tokens per second", sample.at, {"tokens": round(rate, 1)})

    def _counter(self, pid: int, name: str, at: float, values: Mapping[str, float]) -> TraceEvent:
        return {"ph": "C", "pid": pid, "tid": 0, "name": name, "ts": self._at(at), "args": values}

    def _of_worker(self, name: str, pid: int) -> Iterator[TraceEvent]:
        """A worker's counters of the KV cache, and its stalls; equal stalls of neighbouring samples are one slice."""
        seen = [(sample.at, sample.workers[name]) for sample in self._trace.samples if name in sample.workers]
        for at, worker in seen:
            yield self._counter(pid, "KV cache", at, {"used": worker.kv_used, "reserved": worker.kv_reserved})
        begun, since, until = "", 0.0, 0.0
        for (start, before), (end, after) in pairwise(seen):
            stall = _stall(before, after, end - start)
            if stall != begun or start > until:
                if begun:
                    yield self._slice(pid, begun, since, until)
                begun, since = stall, start
            until = end
        if begun:
            yield self._slice(pid, begun, since, until)


def _tid(pid: int, row: int) -> int:
    return pid * ROWS + 1 + row


def _names(pid: int, name: str, rows: Mapping[int, str]) -> Iterator[TraceEvent]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
    for row, label in rows.items():
        place = {"ph": "M", "pid": pid, "tid": _tid(pid, row)}
        yield place | {"name": "thread_name", "args": {"name": label}}
        yield place | {"name": "thread_sort_index", "args": {"sort_index": row}}


def _slice_of(lease: PlacedLease, pid: int) -> TraceEvent:
    fact, chunk = lease.fact, lease.chunk
    args = {
        "batch": fact.batch,
        "group": fact.group,
        "index": fact.index,
        "lease": lease.number,
        "tokens": chunk.end - chunk.start,
        "from": chunk.start,
        "ended by": chunk.event,
        "waited, s": round(lease.waited, 3),
        "worker": chunk.worker,
    }
    if lease.is_last:
        args |= {"status": fact.status, "finish reason": fact.finish_reason}
    return {
        "ph": "X",
        "cat": "lease",
        "name": f"{fact.group}/{fact.index}",
        "pid": pid,
        "tid": _tid(pid, lease.row),
        "ts": lease.start,
        "dur": lease.end - lease.start,
        "args": args,
    }


def _stall(before: WorkerSample, after: WorkerSample, seconds: float) -> str:
    """The cause of a worker's stall between two samples; "" if there was none."""
    if after.silent > SILENT_SECONDS:
        return "silent"
    if after.state and after.state not in WORKING_STATES:
        return after.state
    if before.seconds is None or after.seconds is None or before.boot != after.boot:
        return ""
    if after.seconds.weights - before.seconds.weights > STALLED * seconds:
        return "changing weights"
    waited = after.seconds.store_idle + after.seconds.store_below - before.seconds.store_idle
    return "waiting for the store" if waited - before.seconds.store_below > STALLED * seconds else ""
