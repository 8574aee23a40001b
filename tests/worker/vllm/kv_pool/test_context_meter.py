"""The seconds that an engine spends on contexts are separated from those of generation."""

from types import SimpleNamespace
from typing import Any

from openseer_core.worker.context_metrics import ContextCounts
from openseer_worker.vllm.kv_pool.metrics import ContextMeter


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def step(**computed: int) -> Any:
    """A step of vLLM that completes the contexts of these requests, with the computed tokens of each."""
    outputs = [
        SimpleNamespace(request_id=key, prefill_stats=SimpleNamespace(num_computed_tokens=tokens))
        for key, tokens in computed.items()
    ]
    return SimpleNamespace(
        scheduler_stats=None, outputs=[*outputs, SimpleNamespace(request_id="x", prefill_stats=None)]
    )


def response(*, resumed: bool = False) -> Any:
    return SimpleNamespace(resumed=resumed)


def test_step_time_is_divided_by_the_share_of_context_tokens() -> None:
    clock = Clock()
    meter = ContextMeter(clock)
    running = {"a": response(), "b": response(resumed=True)}
    meter.awaits("a", generated=100)
    meter.awaits("b", generated=100)
    clock.now = 1.0
    meter.take(step(a=30), running, generated=105)
    clock.now = 4.0
    meter.take(step(b=60), running, generated=110)
    clock.now = 50.0
    meter.take(step(), running, generated=200)
    counts = ContextCounts.of_heartbeat(meter.metrics())
    assert counts == ContextCounts(computed=90, recomputed=60, compute_seconds=3.6)


def test_a_request_that_left_before_its_first_token_is_forgotten() -> None:
    clock = Clock()
    meter = ContextMeter(clock)
    meter.awaits("a", generated=0)
    clock.now = 2.0
    meter.take(step(), {}, generated=0)
    clock.now = 9.0
    meter.take(step(), {}, generated=5)
    assert ContextCounts.of_heartbeat(meter.metrics()) == ContextCounts()
