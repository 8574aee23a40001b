"""What a worker reports of the contexts that its engine took up: computed, cached, or fetched from the KV pool."""

from collections import Counter
from typing import Any

from openseer_core.worker.context_metrics import ContextCounts


class ContextMeter:
    """Counts since the engine's start, by the names of ContextCounts."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()

    def note(self, stats: Any) -> None:
        """Takes vLLM's SchedulerStats of a step."""
        self._sums["cached"] += stats.prefix_cache_stats.hits
        if stats.kv_connector_stats:
            self._sums.update(stats.kv_connector_stats)

    def begin(self, prefill: Any, *, resumed: bool) -> None:
        """Takes vLLM's PrefillStats of a request that has its first token here. `resumed`: it has run before."""
        self._sums["computed"] += prefill.num_computed_tokens
        if resumed:
            self._sums["recomputed"] += prefill.num_computed_tokens

    def metrics(self) -> dict[str, float | int | str]:
        """For heartbeats."""
        return ContextCounts.of(self._sums).metrics()
