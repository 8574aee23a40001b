"""The profile of verification costs, on a played engine core."""

import math
import time
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest

from openseer_core.manifest.job import Sampling
from openseer_core.queue.kv_blocks import whole
from openseer_worker.engine import EngineProfile
from openseer_worker.vllm.drafting.calls import DraftCalls
from openseer_worker.vllm.drafting.link import DraftLink
from openseer_worker.vllm.drafting.step_probe import Probe
from openseer_worker.vllm.drafting.step_profile import LENGTHS, best_gain, measure
from openseer_worker.vllm.environment import engine_version
from openseer_worker.vllm.extension import WorkerExtension

PROFILE = EngineProfile(blocks=400, layout=whole(32), slots=64, context_tokens=1024, device="cpu", engine="played")


def test_a_probe_drafts_each_length_in_turn_and_takes_the_median() -> None:
    probe = Probe(2, [0, 3], 3, 100)
    assert probe.drafts(1, 0.5)[1].tolist() == [0]
    lengths: list[int] = []
    seconds = 0.0
    for _ in range(6):
        tokens, drafted = probe.drafts(2, seconds)
        assert tokens.shape == (2, drafted[0])
        assert ((tokens >= 0) & (tokens < 100)).all()
        lengths.append(int(drafted[0]))
        seconds = 1.0 + drafted[0] + (50.0 if len(lengths) == 2 else 0.0)
    assert probe.drafts(2, seconds)[1].tolist() == [0, 0]
    assert lengths == [3, 0, 3, 0, 3, 0]
    assert dict(probe.medians()) == {0: 1.0, 3: 4.0}


def test_steps_of_other_batches_are_not_measured() -> None:
    probe = Probe(2, [1], 4, 100)
    for rows, seconds in [(2, 0.0), (2, 0.0), (3, 9.0), (2, 9.0), (2, 2.0)]:
        probe.drafts(rows, seconds)
    assert probe.medians() == [(1, 2.0)]


def test_the_best_gain_is_the_largest_of_all_batches() -> None:
    assert best_gain({}) == math.inf
    assert best_gain({(1, 0): 1.0}) == math.inf
    assert best_gain({(1, 0): 1.0, (1, 3): 2.0, (8, 0): 1.0, (8, 1): 4.0}) == 2.0


class PlayedCore:
    """vLLM's core as far as the profile uses it; a step that verifies n tokens takes `seconds(n)`, in numbers only."""

    def __init__(self, seconds: Callable[[int], float], pause: float = 0.0) -> None:
        self._seconds = seconds
        self._pause = pause
        self._running: list[str] = []
        self._rows = 0
        self._probed: list[int] = []
        self.begun: list[int] = []
        self.calls: list[tuple[Any, ...]] = []
        self.aborted = 0
        self.resets = 0

    def add_request(self, request: Any) -> None:
        self._running.append(request.request_id)

    def abort_requests(self, keys: list[str]) -> None:
        self.aborted += len(keys)
        self._running = []

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def get_output(self) -> Any:
        time.sleep(self._pause)
        ended = [] if self._pause else self._running
        self._running = [] if ended else self._running
        return SimpleNamespace(outputs=[SimpleNamespace(request_id=key, finish_reason="length") for key in ended])

    def collective_rpc(self, method: str, args: tuple[Any, ...] = (), kwargs: Any = None) -> list[Any]:
        assert hasattr(WorkerExtension, method)
        assert not kwargs
        self.calls.append((method, *args))
        if method == "probe_steps":
            self._rows, self._probed = args[0], args[1]
            self.begun.append(self._rows)
        if method == "end_step_probe":
            return [None, [(length, self._seconds(self._rows * (1 + length))) for length in self._probed]]
        if method == "draft_metrics":
            off = [args[0] for method, *args in self.calls if method == "switch_off_drafts"]
            return [None, (off[0] if off else "", {})]
        return [None, None]


class PlayedInputs:
    model_config = SimpleNamespace(get_vocab_size=lambda: 97)

    def process_inputs(self, key: str, *_: Any) -> Any:
        return SimpleNamespace(request_id=key)


class Make(Protocol):
    def __call__(self, seconds: Callable[[int], float], pause: float = 0.0) -> PlayedCore: ...


@pytest.fixture
def core_of() -> Make:
    """The class of the played core, after the import of vLLM, which also precedes a real core."""
    import_module("openseer_worker.vllm.arguments")
    return PlayedCore


def on_vllm(test: Any) -> Any:
    """Marks a test that needs vLLM's own types of a request."""
    for mark in (
        pytest.mark.engine,
        pytest.mark.filterwarnings("default"),
        pytest.mark.skipif(not engine_version(), reason="needs vLLM"),
    ):
        test = mark(test)
    return test


@on_vllm
@pytest.mark.parametrize(("overhead", "pays"), [(0.01, True), (0.0, False)])
def test_an_engine_without_gain_from_drafts_does_not_draft(core_of: Make, overhead: float, pays: bool) -> None:
    core = core_of(lambda tokens: overhead + 0.001 * tokens)
    link = DraftLink(core, "")
    link.start(PlayedInputs(), PROFILE, Sampling(), 8)
    assert link.on is pays
    assert link.metrics()["drafts"] == (
        "on" if pays else "off: even drafts that are all accepted would make this engine only 1.00 times as fast"
    )
    assert core.begun == [1, 64, 4, 16]
    learned = [tuple(args) for method, *args in core.calls if method == "learn_step"]
    assert len(learned) == len(core.begun) * len(LENGTHS)
    assert (16, 16 * 3, pytest.approx(overhead + 0.064)) in learned
    assert (core.aborted, core.resets) == (0, 1)


@on_vllm
def test_the_profile_of_a_slow_engine_ends_at_its_time_limit(core_of: Make) -> None:
    """The engine ends no request, so only the time limit ends the profile, at its first batch."""
    core = core_of(lambda tokens: 0.3 * tokens, pause=0.3)
    assert np.isfinite(best_gain(measure(core, DraftCalls(core), PlayedInputs(), PROFILE, Sampling(), 8)))
    assert (core.begun, core.aborted, core.resets) == ([1], 1, 1)


@on_vllm
def test_a_small_engine_is_measured_up_to_its_limits(core_of: Make) -> None:
    core = core_of(lambda tokens: 0.01)
    small = EngineProfile(blocks=24, layout=whole(32), slots=8, context_tokens=256, device="cpu", engine="played")
    assert {length for _, length in measure(core, DraftCalls(core), PlayedInputs(), small, Sampling(), 2)} == {0, 1}
    assert core.begun == [1, 8, 4]
    tiny = EngineProfile(blocks=2, layout=whole(32), slots=8, context_tokens=48, device="cpu", engine="played")
    assert measure(core, DraftCalls(core), PlayedInputs(), tiny, Sampling(), 8) == {}
