"""Probes and metrics of a worker's pod: written by the event loop, read by the web server's threads."""

import asyncio
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openseer_core.worker.heartbeat import Heartbeat
from openseer_worker.draft_metrics import draft_metrics

TICK_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""An event loop that has not run its tick for so long counts as dead."""

_GAUGES = {
    "inflight": ("inflight", "Responses held."),
    "running": ("running", "Responses in the engine's batch."),
    "waiting": ("waiting", "Responses in the engine that wait for its batch."),
    "slots": ("slots", "Responses that may be held at once."),
    "kv_used": ("kv_used_ratio", "Part of the KV cache in use."),
    "kv_reserved": ("kv_reserved_ratio", "Part of the KV cache that is promised."),
    "held_tokens": ("held_tokens", "Tokens of context in what is held: lost with the worker's KV cache."),
    "checkpoint_seconds": ("checkpoint_interval_seconds", "Interval of checkpoints now: what a death costs at most."),
}
_COUNTERS = {
    "tokens": ("tokens", "Tokens generated."),
    "preemptions": ("preemptions", "Responses that the engine had to stop for want of KV blocks."),
    "steps": ("steps", "Steps of the engine."),
    "context_computed": ("computed_tokens", "Tokens of context computed."),
    "context_recomputed": ("recomputed_tokens", "Tokens of context computed of responses that ran before."),
    "context_cached": ("cached_tokens", "Tokens of context found in the prefix cache."),
    "context_fetched": ("fetched_tokens", "Tokens of context whose KV came from the pool."),
    "context_fetched_bytes": ("kv_pool_loaded_bytes", "Bytes of KV that came from the pool."),
    "context_fetch_seconds": ("kv_pool_load_seconds", "Seconds of all fetches from the pool."),
    "context_failed_fetches": (
        "kv_pool_failed_loads",
        "Fetches from the pool that failed, so that contexts were computed.",
    ),
    "context_saved_bytes": ("kv_pool_saved_bytes", "Bytes of KV written to the pool."),
    "context_unsaved_blocks": ("kv_pool_unsaved_blocks", "Blocks of KV that the pool did not take."),
    "routes_lost_bytes": ("routes_lost_bytes", "Bytes of rows of routed experts that were not written."),
}
_GPU_GAUGES = {
    "memory_used": ("gpu_memory_used_bytes", "Memory in use.", 1.0),
    "memory_total": ("gpu_memory_total_bytes", "Memory.", 1.0),
    "utilisation": ("gpu_utilisation_ratio", "Part of the time in which something ran.", 1.0),
    "sm_mhz": ("gpu_sm_clock_hertz", "Clock of the processors.", 1e6),
    "throttled": ("gpu_throttled", "1 while heat or the power supply slows it.", 1.0),
    "ecc_uncorrected": ("gpu_ecc_uncorrected_errors", "Memory errors since the driver was loaded.", 1.0),
    "xid": ("gpu_xid", "Number of the last Xid error.", 1.0),
}


class Health(Collector):
    """The worker's probes and metrics. Before `serve` and `tick` it is alive and not ready."""

    def __init__(self) -> None:
        self._ready: Callable[[], bool] = lambda: False
        self._heartbeat: Callable[[], Heartbeat | None] = lambda: None
        self._ticked_at: float | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def serve(self, ready: Callable[[], bool], heartbeat: Callable[[], Heartbeat | None]) -> None:
        """From now on reports what `ready` and `heartbeat` return; both return at once."""
        self._ready, self._heartbeat = ready, heartbeat

    async def tick(self) -> None:
        """Shows that the event loop runs, until it is cancelled. To be begun when the engine is there: while one is
        imported and built, hardly anything else runs."""
        while True:
            self._ticked_at = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)

    def ready(self) -> bool:
        """Whether the worker takes work."""
        return self._ready()

    def alive(self) -> bool:
        """Whether the event loop lives."""
        return self._ticked_at is None or time.monotonic() - self._ticked_at < STUCK_SECONDS

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: which metrics there are depends on the machine."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics of the last heartbeat."""
        heartbeat = self._heartbeat()
        if heartbeat is None:
            return
        state = GaugeMetricFamily("openseer_worker_state", "1 for the state that it is in.", labels=["state"])
        state.add_metric([heartbeat.state], 1)
        yield state
        for key, (name, text) in _GAUGES.items():
            if key in heartbeat.metrics:
                yield GaugeMetricFamily(f"openseer_worker_{name}", text, value=float(heartbeat.metrics[key]))
        for key, (name, text) in _COUNTERS.items():
            if key in heartbeat.metrics:
                yield CounterMetricFamily(f"openseer_worker_{name}", text, value=float(heartbeat.metrics[key]))
        yield from draft_metrics(heartbeat.metrics)
        yield from _gpu_metrics(heartbeat)


def _gpu_metrics(heartbeat: Heartbeat) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for key, value in heartbeat.metrics.items():
        gpu, _, reading = key.partition("_")
        if not gpu.startswith("gpu") or reading not in _GPU_GAUGES:
            continue
        name, text, scale = _GPU_GAUGES[reading]
        family = families.setdefault(reading, GaugeMetricFamily(f"openseer_worker_{name}", text, labels=["gpu"]))
        family.add_metric([gpu.removeprefix("gpu")], float(value) * scale)
    return families.values()
