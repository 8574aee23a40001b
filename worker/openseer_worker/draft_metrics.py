"""Prometheus metrics of a worker's drafting, from the metrics of the last heartbeat."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from openseer_core.worker.draft_metrics import CORPUS_SIZES, DRAFT_ORIGINS

_COUNTERS = {
    "draft_steps": ("draft_row_steps", "Request-steps (one request in one step) that carried a draft."),
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
_BY_ORIGIN = {
    "drafted": ("drafted_tokens", "Tokens drafted, by where the drafts came from."),
    "accepted": ("accepted_tokens", "Of these, tokens that came true."),
}
_BY_CORPUS_SIZE = {
    "steps": ("row_steps", "Request-steps, by the number of siblings that could be drafted from, up to the next one."),
    "tokens": ("row_tokens", "Tokens that they gained, the engine's own ones included."),
}


def draft_metrics(metrics: Mapping[str, float | int | str]) -> Iterable[Metric]:
    """None of an engine that cannot draft; of one that does not draft, only that and why."""
    drafts = str(metrics.get("drafts", ""))
    if not drafts:
        return
    state, _, reason = drafts.partition(": ")
    on = GaugeMetricFamily("openseer_worker_drafting", "1 while it drafts; else the reason.", labels=["reason"])
    on.add_metric([reason], float(state == "on"))
    yield on
    for key, (name, text) in _COUNTERS.items():
        if key in metrics:
            yield CounterMetricFamily(f"openseer_worker_{name}", text, value=float(metrics[key]))
    for key, (name, text) in _GAUGES.items():
        if key in metrics:
            yield GaugeMetricFamily(f"openseer_worker_{name}", text, value=float(metrics[key]))
    for what, (name, text) in _BY_ORIGIN.items():
        yield from _family(metrics, name, text, "source", {origin: f"{what}_{origin}" for origin in DRAFT_ORIGINS})
    for what, (name, text) in _BY_CORPUS_SIZE.items():
        keys = {str(size): f"{what}_refs_{size}" for size in CORPUS_SIZES}
        yield from _family(metrics, name, text, "references", keys)


def _family(
    metrics: Mapping[str, float | int | str], name: str, text: str, label: str, keys: Mapping[str, str]
) -> Iterable[Metric]:
    family = CounterMetricFamily(f"openseer_worker_{name}", text, labels=[label])
    for value, key in keys.items():
        if key in metrics:
            family.add_metric([value], float(metrics[key]))
    if family.samples:
        yield family
