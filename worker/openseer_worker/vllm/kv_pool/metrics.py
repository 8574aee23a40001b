"""Counts the context tokens of a worker's engine by origin: computed, cached, or fetched from the KV pool."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from openseer_core.worker.context_metrics import ContextCounts
from openseer_worker.vllm.outputs import ResponseState


class ContextMeter:
    """Counts context tokens since the engine's start, by the names of ContextCounts.

    Contexts are computed in the same steps as growing responses. So while a context is being computed, the time of
    contexts is the engine's time, multiplied by the share of context tokens in all computed tokens.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self._awaited: set[str] = set()
        self._since = 0.0
        self._generated = self._computed = 0

    def awaits(self, key: str, generated: int) -> None:
        """Notes a request whose context vLLM has to compute. `generated`: tokens that the engine has generated."""
        if not self._awaited:
            self._since, self._generated, self._computed = self._clock(), generated, 0
        self._awaited.add(key)

    def take(self, outputs: Any, running: Mapping[str, ResponseState], generated: int) -> None:
        """Counts the outputs of one step. `running`: the requests in the engine; `generated`: as in `awaits`."""
        if outputs.scheduler_stats is not None:
            self._sums["cached"] += outputs.scheduler_stats.prefix_cache_stats.hits
            if outputs.scheduler_stats.kv_connector_stats:
                self._sums.update(outputs.scheduler_stats.kv_connector_stats)
        if not self._awaited:
            return
        for output in [output for output in outputs.outputs if output.prefill_stats is not None]:
            if (state := running.get(output.request_id)) is not None:
                self._begin(output.request_id, output.prefill_stats.num_computed_tokens, resumed=state.resumed)
        self._awaited &= running.keys()
        if not self._awaited:
            share = self._computed / max(1, self._computed + generated - self._generated)
            self._seconds += share * (self._clock() - self._since)

    def _begin(self, key: str, computed: int, *, resumed: bool) -> None:
        """Notes that a request's context is ready, after computing `computed` tokens of it. `resumed`: the response had
        tokens before."""
        self._awaited.discard(key)
        self._computed += computed
        self._sums["computed"] += computed
        if resumed:
            self._sums["recomputed"] += computed

    def metrics(self) -> dict[str, float | int | str]:
        """Returns the counts, for heartbeats."""
        return ContextCounts.of({**self._sums, "compute_seconds": self._seconds}).metrics()
