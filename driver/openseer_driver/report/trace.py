"""Reads the data of a run for reports: requests without tokens, samples, and a clock that excludes pauses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from openseer_driver.report.failures import NO_FAILURES, FailureCount, Failures
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ChunkLine, FactLine, RoutedFact, RunRecord, SampleLine, Session


@dataclass(frozen=True, slots=True)
class Fact:
    """One result without its tokens, small enough to keep all results of a run in memory."""

    batch: int
    group: str
    index: int
    status: str
    finish_reason: str
    length: int
    chunks: tuple[ChunkLine, ...]
    enqueued_at: float
    started_at: float | None
    finished_at: float
    prompt: int = 0
    """Number of tokens of its prompt."""
    rows: RoutedFact | None = None
    """Rows of routed experts; None if none were captured."""

    @property
    def group_key(self) -> tuple[int, str]:
        """Batch and name of its group."""
        return self.batch, self.group

    @staticmethod
    def of(line: FactLine) -> "Fact":
        """The fact of a result line."""
        times = line.timings
        return Fact(
            line.batch,
            line.group,
            line.index,
            line.status,
            line.finish_reason,
            line.length,
            tuple(line.chunks),
            times.enqueued_at,
            times.started_at,
            times.finished_at,
            line.prompt_length,
            line.routed_experts,
        )


@dataclass(frozen=True, slots=True)
class ActiveClock:
    """Seconds since the first request was claimed, without the pauses between the sessions of a resumed run."""

    origin: float
    pauses: tuple[tuple[float, float], ...] = ()

    def at(self, time: float) -> float:
        """Active seconds at `time` (seconds of the store's clock)."""
        paused = sum(max(0.0, min(time, end) - max(start, self.origin)) for start, end in self.pauses)
        return max(0.0, time - self.origin) - paused


@dataclass(frozen=True, slots=True)
class Trace:
    """The data of one run. `facts`: in the order in which they finished."""

    record: RunRecord
    facts: tuple[Fact, ...]
    samples: tuple[SampleLine, ...]
    clock: ActiveClock
    failures: Failures = NO_FAILURES

    @property
    def end(self) -> float:
        """Active seconds at the end of the last request."""
        return max((self.clock.at(fact.finished_at) for fact in self.facts), default=0.0)

    @property
    def began_at(self) -> float:
        """Start of the run, or the time at which its first request was queued if that is earlier, in seconds of the
        store's clock."""
        return min(self.queued_at, *(session.started_at for session in self.record.sessions[:1]), self.clock.origin)

    @property
    def queued_at(self) -> float:
        """The time at which the first request was queued, in seconds of the store's clock."""
        return min((fact.enqueued_at for fact in self.facts), default=self.clock.origin)

    @property
    def startup_seconds(self) -> float:
        """Seconds from the start of the run to the first claim, in which prompts are read and engines load."""
        return self.clock.origin - self.began_at

    @property
    def worker_names(self) -> list[str]:
        """Names of all workers in chunks or samples, in natural order."""
        with_chunks = {chunk.worker_name for fact in self.facts for chunk in fact.chunks}
        return sorted(with_chunks.union(*(sample.workers for sample in self.samples)), key=natural)

    def finish_times(self) -> list[float]:
        """Active seconds at the end of each request, in ascending order."""
        return sorted(self.clock.at(fact.finished_at) for fact in self.facts)

    def spans(self, worker: str) -> list[tuple[float, float, ChunkLine, Fact]]:
        """A worker's chunks as (from, to, chunk, request) in active seconds, in order of their start."""
        at = self.clock.at
        chunks = [(chunk, fact) for fact in self.facts for chunk in fact.chunks if chunk.worker_name == worker]
        spans = [(at(chunk.claimed_at), at(chunk.ended_at), chunk, fact) for chunk, fact in chunks]
        return sorted(spans, key=lambda span: span[:2])


def read_trace(folder: RunFolder) -> Trace:
    """Reads a run folder. Raises InputError if it is not the folder of a run."""
    failures, facts = FailureCount(), list[Fact]()
    for line in folder.facts():
        failures.take(line.status, line.group, line.index, line.stop_reason)
        facts.append(Fact.of(line))
    facts.sort(key=lambda fact: fact.finished_at)
    return make_trace(folder.read_run(), tuple(facts), tuple(folder.samples()), failures.counted())


def make_trace(
    record: RunRecord, facts: tuple[Fact, ...], samples: tuple[SampleLine, ...], failures: Failures = NO_FAILURES
) -> Trace:
    """Makes a trace and its clock."""
    queued = min((fact.enqueued_at for fact in facts), default=0.0)
    origin = min((fact.started_at for fact in facts if fact.started_at is not None), default=queued)
    pauses = tuple(_pauses(record.sessions, facts, samples))
    return Trace(record, facts, samples, ActiveClock(origin, pauses), failures)


def natural(name: str) -> tuple[str, int, str]:
    """Sort key: worker-2 before worker-10, with any number of digits."""
    stem = name.rstrip("0123456789")
    number = name[len(stem) :].lstrip("0")
    return stem, len(number), number


def step_changes(spans: Iterable[tuple[float, float]]) -> tuple[list[float], list[int]]:
    """The number of open spans over time. Returns the times at which it changes, and the number from each time on."""
    changes = sorted(change for start, end in spans for change in ((start, 1), (end, -1)))
    times: list[float] = [0.0]
    counts = [0]
    for time, change in changes:
        if time > times[-1]:
            times.append(time)
            counts.append(counts[-1])
        counts[-1] += change
    return times, counts


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one of the spans, sorted by their start, is open."""
    total, reach = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return total


def _pauses(
    sessions: Sequence[Session], facts: Sequence[Fact], samples: Sequence[SampleLine]
) -> Iterator[tuple[float, float]]:
    ordered = sorted(sessions, key=lambda session: session.started_at)
    for earlier, later in pairwise(ordered):
        ended = earlier.ended_at
        if ended is None:  # killed: it ran at least until the last time recorded in it
            ended = _last_sign(facts, samples, before=later.started_at, after=earlier.started_at)
        if ended < later.started_at:
            yield ended, later.started_at


def _last_sign(facts: Sequence[Fact], samples: Sequence[SampleLine], *, before: float, after: float) -> float:
    signs = [sample.at for sample in samples]
    signs += [time for fact in facts for chunk in fact.chunks for time in (chunk.claimed_at, chunk.ended_at)]
    return max((time for time in signs if after <= time < before), default=after)


def count_up(values: Iterable[float]) -> list[float]:
    """Converts the values of a counter that restarts at 0 at each boot of its worker to sums over all boots."""
    total, before, sums = 0.0, 0.0, list[float]()
    for value in values:
        total += value - before if value >= before else value
        before = value
        sums.append(total)
    return sums
