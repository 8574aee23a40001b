"""Calculates the metrics of a run from its trace. `report.json` contains all of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil
from statistics import fmean, median, pvariance

import msgspec

from openseer_core.ids import GroupId
from openseer_core.manifest.fleet import RolloutSpec
from openseer_core.manifest.generation import Sampling
from openseer_core.queue.batch import tail_start
from openseer_core.queue.group import GroupView
from openseer_core.queue.length_estimate import estimate
from openseer_core.worker.context_metrics import ContextCounts
from openseer_driver.report.contexts import sum_contexts
from openseer_driver.report.drafting import DraftReport, draft_points, drafting_states, make_draft_report
from openseer_driver.report.failures import NO_FAILURES, Failures
from openseer_driver.report.routed import RowCounts, count_rows
from openseer_driver.report.trace import Fact, Trace, count_up, covered, step_changes

PERCENTS = (50, 90, 99, 100)

MAKESPAN_RULE = "from the first claim of a request to the end of the last request"
PAUSES_RULE = "; the pauses between the sessions of a resumed run are not counted"


class Lengths(msgspec.Struct, frozen=True):
    """Response lengths in tokens (status ok only). The two variances add up to the variance of all lengths;
    `between_share` is the share of the variance between groups."""

    mean: float = 0.0
    median: float = 0.0
    p90: int = 0
    p99: int = 0
    max: int = 0
    variance_within_groups: float = 0.0
    variance_between_groups: float = 0.0
    between_share: float = 0.0


class EstimatePoint(msgspec.Struct, frozen=True):
    """The estimate of a request's length at its first claim, and its true length, in tokens.

    `informed`: a sibling had finished before the first claim; otherwise the estimate is the limit, max_tokens.
    """

    group: str
    index: int
    informed: bool
    estimate: int
    length: int


class EstimateError(msgspec.Struct, frozen=True):
    """Error of the informed estimates, in tokens. `bias`: mean of estimate minus length; `mean_ratio`: mean of estimate
    divided by length; `within_a_quarter`: fraction that differs from the length by at most a quarter of it."""

    requests: int = 0
    informed: int = 0
    mean_absolute_error: float = 0.0
    bias: float = 0.0
    mean_ratio: float = 0.0
    within_a_quarter: float = 0.0


class WorkerSummary(msgspec.Struct, frozen=True):
    """One worker's metrics. `busy_seconds`: time in which it ran a request; `slots_used_share`: mean used fraction of
    its slots."""

    tokens: int
    chunks: int
    busy_seconds: float
    idle_share: float
    peak_inflight: int
    slots: int
    slots_used_share: float
    preemptions: int


class ChunkCounts(msgspec.Struct, frozen=True):
    """Chunks per request."""

    mean: float
    max: int


class Report(msgspec.Struct, frozen=True):
    """All metrics of a run; durations are active seconds (see `makespan_is`).

    `started_at`, `ended_at`: first claim and last end of a request, in seconds of the store's clock. `drafts`: the
    workers' states of drafting; `drafting`: None if nothing was drafted. `routed_experts`: None if none were captured.
    """

    name: str
    openseer: str
    state: str
    reason: str
    policy: str
    started_at: float
    ended_at: float
    sessions: int
    pause_seconds: float
    startup_seconds: float
    makespan_is: str
    makespan_seconds: float
    tail_seconds: float
    tail_share: float
    time_to_percent: dict[str, float]
    groups: int
    requests_total: int
    requests_ok: int
    by_status: dict[str, int]
    by_finish_reason: dict[str, int]
    tokens_total: int
    tokens_per_second: float
    preemptions: int
    requeues: int
    give_backs: int
    reaps: int
    moves: int
    chunks_per_request: ChunkCounts
    idle_share: float
    lengths: Lengths
    estimates: EstimateError
    workers: dict[str, WorkerSummary]
    drafts: str = ""
    drafting: DraftReport | None = None
    failures: Failures = NO_FAILURES
    contexts: ContextCounts = ContextCounts()
    routed_experts: RowCounts | None = None

    @property
    def acceptance_length(self) -> float:
        """Mean tokens that a request gained in a step: 1 without drafts."""
        return self.drafting.acceptance_length if self.drafting is not None else 1.0

    @property
    def summary(self) -> str:
        """The run in one line, for a terminal or a log."""
        return (
            f"{self.requests_ok:,} of {self.requests_total:,} responses in {self.makespan_seconds:.1f} s "
            f"({self.tokens_per_second:,.0f} tokens/s); the last 10 % took {self.tail_seconds:.1f} s of it; "
            f"{self.preemptions} preemptions, {self.requeues} requeues"
            + (f", {self.contexts.fetched:,} tokens of context fetched" if self.contexts.fetched else "")
            + (f"; {self.acceptance_length:.2f} tokens a step with drafts" if self.drafting is not None else "")
            + (f"; {self.routed_experts.text}" if self.routed_experts is not None else "")
        )

    def to_json(self) -> bytes:
        """The text of report.json."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def make_report(trace: Trace) -> Report:
    """Measures a run, finished or not."""
    record, facts, makespan = trace.record, trace.facts, trace.end
    finishes = trace.finish_times()
    events = Counter(chunk.event for fact in facts for chunk in fact.chunks)
    tokens = sum(fact.length for fact in facts)
    workers = {name: _worker(trace, name) for name in trace.worker_names}
    tail = makespan - tail_start(finishes)
    pauses = trace.clock.pauses
    return Report(
        name=record.name,
        openseer=record.openseer,
        state=record.state,
        reason=record.reason,
        policy=record.setting("rollout", "policy") or RolloutSpec().policy,
        started_at=trace.clock.origin,
        ended_at=max((fact.finished_at for fact in facts), default=0.0),
        sessions=len(record.sessions),
        pause_seconds=sum(end - start for start, end in pauses),
        startup_seconds=trace.startup_seconds,
        makespan_is=MAKESPAN_RULE + (PAUSES_RULE if pauses else ""),
        makespan_seconds=makespan,
        tail_seconds=tail,
        tail_share=_ratio(tail, makespan),
        time_to_percent={str(percent): at_percent(finishes, percent) for percent in PERCENTS},
        groups=len({fact.group_key for fact in facts}),
        requests_total=len(facts),
        requests_ok=sum(fact.status == "ok" for fact in facts),
        by_status=dict(Counter(fact.status for fact in facts)),
        by_finish_reason=dict(Counter(fact.finish_reason for fact in facts)),
        tokens_total=tokens,
        tokens_per_second=_ratio(tokens, makespan),
        preemptions=sum(worker.preemptions for worker in workers.values()),
        requeues=events["give_back"] + events["reap"],
        give_backs=events["give_back"],
        reaps=events["reap"],
        moves=sum(_moves(fact) for fact in facts),
        chunks_per_request=_chunk_counts(facts),
        idle_share=_mean(worker.idle_share for worker in workers.values()),
        lengths=_lengths(facts),
        estimates=_estimate_error(estimate_points(trace)),
        workers=workers,
        drafts=drafting_states(trace.samples),
        drafting=make_draft_report(draft_points(trace.samples)),
        failures=trace.failures,
        contexts=sum_contexts(trace),
        routed_experts=count_rows(facts),
    )


def at_percent(ordered: Sequence[float], percent: float) -> float:
    """The percentile of ordered values by nearest rank; 0 if there are none."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def estimate_points(trace: Trace) -> list[EstimatePoint]:
    """Computes again the estimate of every request, except probes, at its first claim.

    Uses the siblings that had finished by then. Running siblings can also raise an estimate, but are not recorded.
    """
    limit = trace.record.setting("sampling", "maxTokens") or Sampling().max_tokens
    groups: dict[tuple[int, str], list[Fact]] = defaultdict(list)
    for fact in trace.facts:
        groups[fact.group_key].append(fact)
    return [
        _point(fact, siblings, int(limit))
        for siblings in groups.values()
        for fact in siblings
        if fact.index > 0 and fact.started_at is not None and fact.status == "ok"
    ]


def _point(fact: Fact, siblings: Sequence[Fact], limit: int) -> EstimatePoint:
    started = fact.started_at or 0.0
    view = GroupView(GroupId(*fact.group_key), 0, 0, len(siblings), max(limit, fact.length), 0.0)
    for sibling in siblings:
        if sibling.status == "ok" and sibling.finished_at <= started:
            view = view.with_finish(sibling.length)
    return EstimatePoint(fact.group, fact.index, view.finished > 0, estimate(view), fact.length)


def _estimate_error(points: Sequence[EstimatePoint]) -> EstimateError:
    informed = [point for point in points if point.informed and point.length > 0]
    off = [point.estimate - point.length for point in informed]
    return EstimateError(
        requests=len(points),
        informed=len(informed),
        mean_absolute_error=_mean(abs(value) for value in off),
        bias=_mean(off),
        mean_ratio=_mean(point.estimate / point.length for point in informed),
        within_a_quarter=_mean(abs(value) <= point.length / 4 for value, point in zip(off, informed, strict=True)),
    )


def _lengths(facts: Sequence[Fact]) -> Lengths:
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for fact in facts:
        if fact.status == "ok":
            groups[fact.group_key].append(fact.length)
    lengths = sorted(length for group in groups.values() for length in group)
    if not lengths:
        return Lengths()
    within = sum(pvariance(group) * len(group) for group in groups.values()) / len(lengths)
    between = max(0.0, pvariance(lengths) - within)
    return Lengths(
        mean=fmean(lengths),
        median=median(lengths),
        p90=int(at_percent(lengths, 90)),
        p99=int(at_percent(lengths, 99)),
        max=lengths[-1],
        variance_within_groups=within,
        variance_between_groups=between,
        between_share=_ratio(between, within + between),
    )


def _worker(trace: Trace, name: str) -> WorkerSummary:
    spans = trace.spans(name)
    times = [(start, end) for start, end, _, _ in spans]
    samples = [sample.workers[name] for sample in trace.samples if name in sample.workers]
    busy, request_seconds = covered(times), sum(end - start for start, end in times)
    slots = max((sample.slots for sample in samples), default=0)
    return WorkerSummary(
        tokens=sum(chunk.end - chunk.start for _, _, chunk, _ in spans),
        chunks=len(spans),
        busy_seconds=busy,
        idle_share=max(0.0, 1.0 - _ratio(busy, trace.end)) if trace.end else 0.0,
        peak_inflight=max(step_changes(times)[1]),
        slots=slots,
        slots_used_share=_ratio(request_seconds, slots * trace.end),
        preemptions=int([0, *count_up(sample.preemptions for sample in samples)][-1]),
    )


def _chunk_counts(facts: Sequence[Fact]) -> ChunkCounts:
    counts = [len(fact.chunks) for fact in facts]
    return ChunkCounts(_mean(counts), max(counts, default=0))


def _moves(fact: Fact) -> int:
    return sum(before.worker_name != after.worker_name for before, after in pairwise(fact.chunks))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return fmean(listed) if listed else 0.0
