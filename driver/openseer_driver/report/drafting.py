"""Calculates a run's drafting metrics: tokens drafted and accepted, by origin, by size of the corpus, and over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from openseer_core.worker.draft_metrics import CORPUS_SIZES, DRAFT_ORIGINS, DraftMetrics, summed
from openseer_driver.run_lines import SampleLine

LEAST_STEPS = 10
"""Least number of engine steps per point. The counters in one heartbeat may differ by a few steps, which distorts
ratios over fewer steps."""


class OriginReport(msgspec.Struct, frozen=True):
    """Tokens drafted from one origin; `wasted`: drafted tokens that were verified and rejected."""

    drafted: int
    accepted: int
    wasted: int


class CorpusReport(msgspec.Struct, frozen=True):
    """Request-steps with one size of the corpus. The acceptance length includes the token that the engine samples."""

    row_steps: int
    acceptance_length: float


class DraftReport(msgspec.Struct, frozen=True):
    """All drafting of a run.

    `row_steps`: number of request-steps, each the part of one request in one step of the engine. `draft_share`: drafted
    fraction of all generated tokens. `full`: number of times that a request continued without drafts because memory
    was missing. `shared_tokens`, `shared_bytes`: tokens of siblings on other workers that workers read, and bytes read.
    `by_source`: by origin; `by_references`: by the lower end of each range of numbers of siblings to draft from.
    """

    acceptance_length: float
    acceptance: float
    draft_length: float
    draft_share: float
    drafted_tokens: int
    accepted_tokens: int
    wasted_tokens: int
    row_steps: int
    seconds: float
    seconds_per_step: float
    full: int
    shared_tokens: int
    shared_bytes: int
    by_source: dict[str, OriginReport]
    by_references: dict[str, CorpusReport]


@dataclass(frozen=True, slots=True)
class DraftPoint:
    """Counts of all workers in an interval that ends at `at`, in seconds of the store's clock."""

    at: float
    counts: DraftMetrics


def draft_points(samples: Sequence[SampleLine]) -> list[DraftPoint]:
    """The run's drafting counts, in intervals of at least LEAST_STEPS engine steps that begin and end at samples."""
    points: list[DraftPoint] = []
    known: dict[str, DraftMetrics] = {}
    gained = DraftMetrics()
    for sample in samples:
        for name, worker in sample.workers.items():
            counts = DraftMetrics(worker.drafts)
            gained += counts.since(known.get(name, DraftMetrics()))
            known[name] = counts
        if gained.request_steps and gained["steps"] >= LEAST_STEPS:
            points.append(DraftPoint(sample.at, gained))
            gained = DraftMetrics()
    if gained.request_steps:
        before = points.pop() if points else DraftPoint(samples[-1].at, DraftMetrics())
        points.append(DraftPoint(samples[-1].at, before.counts + gained))
    return points


def drafting_states(samples: Sequence[SampleLine]) -> str:
    """The workers' states of drafting, each once: on, or off with the reason."""
    states = [worker.drafting for sample in samples[-1:] for worker in sample.workers.values()]
    states = states or [worker.drafting for sample in samples for worker in sample.workers.values()]
    return "; ".join(sorted({state for state in states if state}))


def make_draft_report(points: Sequence[DraftPoint]) -> DraftReport | None:
    """The report over all points; None if nothing was drafted."""
    total = summed(point.counts for point in points)
    if not total.drafted:
        return None
    return DraftReport(
        acceptance_length=total.acceptance_length,
        acceptance=total.acceptance,
        draft_length=total.draft_length,
        draft_share=total.draft_share,
        drafted_tokens=total.drafted,
        accepted_tokens=total.accepted,
        wasted_tokens=total.drafted - total.accepted,
        row_steps=total.request_steps,
        seconds=total["draft_seconds"],
        seconds_per_step=total.seconds_per_step,
        full=round(total["draft_full"]),
        shared_tokens=round(total["shared_tokens"]),
        shared_bytes=round(total["shared_bytes"]),
        by_source={origin: _origin_report(total, origin) for origin in DRAFT_ORIGINS},
        by_references={
            str(count): _corpus_report(total, count) for count in CORPUS_SIZES if total[f"steps_refs_{count}"]
        },
    )


def _origin_report(total: DraftMetrics, origin: str) -> OriginReport:
    drafted, accepted = round(total[f"drafted_{origin}"]), round(total[f"accepted_{origin}"])
    return OriginReport(drafted, accepted, drafted - accepted)


def _corpus_report(total: DraftMetrics, count: int) -> CorpusReport:
    steps = total[f"steps_refs_{count}"]
    return CorpusReport(round(steps), total[f"tokens_refs_{count}"] / steps)
