"""Prometheus metrics of a worker's drafting, from the metrics of the last heartbeat."""

from collections.abc import Mapping

from openseer_core.worker.draft_metrics import CORPUS_SIZES, DRAFT_ORIGINS
from openseer_process.families import Families

_FIGURES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "draft_steps": ("openseer_worker_draft_row_steps_total", {}),
    "draft_seconds": ("openseer_worker_draft_seconds_total", {}),
    "draft_full": ("openseer_worker_draft_full_total", {}),
    "shared_tokens": ("openseer_worker_shared_tokens_total", {}),
    "shared_bytes": ("openseer_worker_shared_bytes_total", {}),
    "share_lag": ("openseer_worker_share_lag_seconds", {}),
    "draft_bytes": ("openseer_worker_draft_memory_bytes", {}),
    "draft_groups": ("openseer_worker_draft_groups", {}),
    **{f"drafted_{origin}": ("openseer_worker_drafted_tokens_total", {"source": origin}) for origin in DRAFT_ORIGINS},
    **{f"accepted_{origin}": ("openseer_worker_accepted_tokens_total", {"source": origin}) for origin in DRAFT_ORIGINS},
    **{f"steps_refs_{size}": ("openseer_worker_row_steps_total", {"references": str(size)}) for size in CORPUS_SIZES},
    **{f"tokens_refs_{size}": ("openseer_worker_row_tokens_total", {"references": str(size)}) for size in CORPUS_SIZES},
}
"""Prometheus metric and its labels by the name in a heartbeat."""


def add_draft_metrics(families: Families, metrics: Mapping[str, float | int | str]) -> None:
    """Adds the metrics of drafts.

    An engine that cannot draft has none. If drafting is off, `openseer_worker_drafting` is 0 and its label contains the
    reason.
    """
    drafts = str(metrics.get("drafts", ""))
    if not drafts:
        return
    state, _, reason = drafts.partition(": ")
    families.add("openseer_worker_drafting", float(state == "on"), reason=reason)
    for key, (name, labels) in _FIGURES.items():
        if key in metrics:
            families.add(name, float(metrics[key]), **labels)
