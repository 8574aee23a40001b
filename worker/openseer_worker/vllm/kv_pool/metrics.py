"""What a worker reports of the contexts that its engine took up: computed, cached, or fetched from the KV pool."""

from collections import Counter
from typing import Any


class ContextCounts:
    """Counters since the engine's start, by the names of core's CONTEXT_COUNTERS."""

    def __init__(self, *, pool: bool) -> None:
        self._pool = pool
        self._tokens: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()

    def note(self, stats: Any) -> None:
        """Takes vLLM's SchedulerStats of a step."""
        self._tokens["cached_tokens"] += stats.prefix_cache_stats.hits
        if stats.kv_connector_stats:
            self._sums.update(stats.kv_connector_stats)

    def begin(self, prefill: Any, *, resumed: bool) -> None:
        """Takes vLLM's PrefillStats of a request that has its first token here. `resumed`: it has run before."""
        self._tokens["computed_tokens"] += prefill.num_computed_tokens
        if resumed:
            self._tokens["recomputed_tokens"] += prefill.num_computed_tokens

    def metrics(self) -> dict[str, float | int | str]:
        """For heartbeats; what is of the pool only where there is one."""
        tokens, sums = self._tokens, self._sums
        found: dict[str, float | int | str] = {
            name: tokens[name] for name in ("computed_tokens", "cached_tokens", "recomputed_tokens")
        }
        if self._pool:
            found |= {
                "fetched_tokens": int(sums["loaded_tokens"]),
                "pool_loaded_bytes": int(sums["load_bytes"]),
                "pool_load_seconds": round(float(sums["load_seconds"]), 3),
                "pool_failed_loads": int(sums["failed_loads"]),
                "pool_saved_bytes": int(sums["save_bytes"]),
                "pool_unsaved_blocks": int(sums["unsaved_blocks"]),
            }
        return found
