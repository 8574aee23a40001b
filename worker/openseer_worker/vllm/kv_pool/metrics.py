"""What a worker reports of the contexts that its engine took up: computed, cached, or fetched from the KV pool."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from openseer_core.worker.context_metrics import ContextCounts
from openseer_worker.vllm.outputs import ResponseState


class ContextMeter:
    """Counts since the engine's start, by the names of ContextCounts.

    Contexts are computed beside responses that grow. While any is, the engine's time counts as theirs in the proportion
    of their tokens to all that were computed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self._awaited: set[str] = set()
        self._since = 0.0
        self._generated = self._computed = 0

    def awaits(self, key: str, generated: int) -> None:
        """A request was given to vLLM, and its context is to be computed. `generated`: tokens of all responses yet."""
        if not self._awaited:
            self._since, self._generated, self._computed = self._clock(), generated, 0
        self._awaited.add(key)

    def take(self, outputs: Any, running: Mapping[str, ResponseState], generated: int) -> None:
        """Takes what one step has produced. `running`: requests that are still here; `generated`: as in `awaits`."""
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
        """A request has its first token here. `resumed`: it has run before."""
        self._awaited.discard(key)
        self._computed += computed
        self._sums["computed"] += computed
        if resumed:
            self._sums["recomputed"] += computed

    def metrics(self) -> dict[str, float | int | str]:
        """For heartbeats."""
        return ContextCounts.of({**self._sums, "compute_seconds": self._seconds}).metrics()
