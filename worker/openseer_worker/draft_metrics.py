"""What a worker's web server tells of its drafting, from the figures of the last heartbeat."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from openseer_core.worker.draft_metrics import CORPUS_SIZES, DRAFT_ORIGINS

_COUNTERS = {
    "draft_steps": ("draft_row_steps", "Row-steps (one request in one step) that carried a draft."),
    "draft_seconds": ("draft_seconds", "Time spent on drafting."),
    "draft_full": ("draft_full", "Times that a request went on without drafts for want of memory."),
    "shared_tokens": ("shared_tokens", "Tokens read of siblings that ran elsewhere."),
    "shared_bytes": ("shared_bytes", "Bytes read for them."),
}
_GAUGES = {
    "share_lag": ("share_lag_seconds", "How old the latest tokens of siblings elsewhere were when they came."),
    "draft_bytes": ("draft_memory_bytes", "Memory of what it drafts from."),
    "draft_groups": ("draft_groups", "Groups that it can draft from."),
}
_BY_SOURCE = {
    "drafted": ("drafted_tokens", "Tokens drafted, by where the drafts came from."),
    "accepted": ("accepted_tokens", "Of these, tokens that came true."),
}
_BY_REFERENCES = {
    "steps": ("row_steps", "Row-steps, by the number of siblings that could be drafted from, up to the next one."),
    "tokens": ("row_tokens", "Tokens that they gained, the engine's own ones included."),
}


def draft_metrics(figures: Mapping[str, float | int | str]) -> Iterable[Metric]:
    """Nothing of an engine that knows no drafts; of one that makes none, only that and why."""
    said = str(figures.get("drafts", ""))
    if not said:
        return
    state, _, reason = said.partition(": ")
    on = GaugeMetricFamily("openseer_worker_drafting", "1 while it drafts; else the reason.", labels=["reason"])
    on.add_metric([reason], float(state == "on"))
    yield on
    for figure, (name, text) in _COUNTERS.items():
        if figure in figures:
            yield CounterMetricFamily(f"openseer_worker_{name}", text, value=float(figures[figure]))
    for figure, (name, text) in _GAUGES.items():
        if figure in figures:
            yield GaugeMetricFamily(f"openseer_worker_{name}", text, value=float(figures[figure]))
    for what, (name, text) in _BY_SOURCE.items():
        yield from _family(figures, name, text, "source", {source: f"{what}_{source}" for source in DRAFT_ORIGINS})
    for what, (name, text) in _BY_REFERENCES.items():
        places = {str(count): f"{what}_refs_{count}" for count in CORPUS_SIZES}
        yield from _family(figures, name, text, "references", places)


def _family(
    figures: Mapping[str, float | int | str], name: str, text: str, label: str, places: Mapping[str, str]
) -> Iterable[Metric]:
    family = CounterMetricFamily(f"openseer_worker_{name}", text, labels=[label])
    for value, figure in places.items():
        if figure in figures:
            family.add_metric([value], float(figures[figure]))
    if family.samples:
        yield family
