"""Probes and metrics of a worker's pod: written by the event loop, read by the web server's threads."""

import asyncio
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from openseer_core.worker.heartbeat import Heartbeat
from openseer_core.worker.metrics import GPU_PREFIX
from openseer_process.families import Families
from openseer_worker.draft_metrics import add_draft_metrics

TICK_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""The event loop counts as dead if its last tick is older than this, in seconds."""

_FIGURES = {
    "inflight": "openseer_worker_inflight",
    "running": "openseer_worker_running",
    "waiting": "openseer_worker_waiting",
    "slots": "openseer_worker_slots",
    "kv_used": "openseer_worker_kv_used_ratio",
    "kv_reserved": "openseer_worker_kv_reserved_ratio",
    "held_tokens": "openseer_worker_held_tokens",
    "checkpoint_seconds": "openseer_worker_checkpoint_interval_seconds",
    "tokens": "openseer_worker_tokens_total",
    "preemptions": "openseer_worker_preemptions_total",
    "steps": "openseer_worker_steps_total",
    "context_computed": "openseer_worker_computed_tokens_total",
    "context_recomputed": "openseer_worker_recomputed_tokens_total",
    "context_cached": "openseer_worker_cached_tokens_total",
    "context_fetched": "openseer_worker_fetched_tokens_total",
    "context_fetched_bytes": "openseer_worker_kv_pool_loaded_bytes_total",
    "context_fetch_seconds": "openseer_worker_kv_pool_load_seconds_total",
    "context_failed_fetches": "openseer_worker_kv_pool_failed_loads_total",
    "context_saved_bytes": "openseer_worker_kv_pool_saved_bytes_total",
    "context_unsaved_blocks": "openseer_worker_kv_pool_unsaved_blocks_total",
    "routes_lost_bytes": "openseer_worker_routes_lost_bytes_total",
}
"""Prometheus metrics by the name in a heartbeat."""
_GPU_FIGURES = {
    "memory_used": ("openseer_worker_gpu_memory_used_bytes", 1.0),
    "memory_total": ("openseer_worker_gpu_memory_total_bytes", 1.0),
    "utilisation": ("openseer_worker_gpu_utilisation_ratio", 1.0),
    "sm_mhz": ("openseer_worker_gpu_sm_clock_hertz", 1e6),
    "throttled": ("openseer_worker_gpu_throttled", 1.0),
    "ecc_uncorrected": ("openseer_worker_gpu_ecc_uncorrected_errors_total", 1.0),
    "xid": ("openseer_worker_gpu_xid", 1.0),
}
"""Metrics of a GPU by the name in a heartbeat after `gpu<i>_`, each with the factor to its Prometheus unit."""


class Health(Collector):
    """The worker's probes and metrics. Before `serve` and `tick` the worker counts as alive and not ready."""

    def __init__(self) -> None:
        self._ready: Callable[[], bool] = lambda: False
        self._heartbeat: Callable[[], Heartbeat | None] = lambda: None
        self._ticked_at: float | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def serve(self, ready: Callable[[], bool], heartbeat: Callable[[], Heartbeat | None]) -> None:
        """Starts reporting the results of `ready` and `heartbeat`; both functions must return at once."""
        self._ready, self._heartbeat = ready, heartbeat

    async def tick(self) -> None:
        """Records ticks of the event loop until cancelled. Start it once the engine is built: importing and building
        the engine hold the GIL for long."""
        while True:
            self._ticked_at = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)

    def ready(self) -> bool:
        """Whether the worker claims requests."""
        return self._ready()

    def alive(self) -> bool:
        """Whether the event loop runs."""
        return self._ticked_at is None or time.monotonic() - self._ticked_at < STUCK_SECONDS

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: the set of metrics depends on the machine."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics of the last heartbeat."""
        heartbeat = self._heartbeat()
        if heartbeat is None:
            return ()
        families = Families()
        families.add("openseer_worker_state", 1, state=heartbeat.state)
        for key, name in _FIGURES.items():
            if key in heartbeat.metrics:
                families.add(name, float(heartbeat.metrics[key]))
        add_draft_metrics(families, heartbeat.metrics)
        _add_gpu_metrics(families, heartbeat)
        return families


def _add_gpu_metrics(families: Families, heartbeat: Heartbeat) -> None:
    for key, value in heartbeat.metrics.gpus.items():
        gpu, _, reading = key.partition("_")
        if reading in _GPU_FIGURES:
            name, scale = _GPU_FIGURES[reading]
            families.add(name, float(value) * scale, gpu=gpu.removeprefix(GPU_PREFIX))
