"""The real engine with non-finite weights: they are never served, and their responses fail."""

import asyncio
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_core.errors import LoadError, ModelError
from openseer_core.manifest.job import Parallelism, Sampling
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import EngineOutput, EngineRequest, NewWeights
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.player import GREEDY, Player, model, work

pytestmark = [
    pytest.mark.engine,
    # Three engines, and vLLM's import on a busy machine.
    pytest.mark.timeout(600),
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

Variant = Callable[[float], Path]
NORM = "model.layers.0.input_layernorm.weight"  # its non-finite values reach the KV cache


@pytest.fixture(scope="module")
def variant(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """Writes the model with one weight of that value."""

    def make(value: float) -> Path:
        from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

        path = tmp_path_factory.mktemp("variant")
        shutil.copytree(folder, path, dirs_exist_ok=True)
        tensors = load_file(folder / "model.safetensors")
        tensors[NORM][5] = value
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path

    return make


def outputs(engine: VllmEngine, request: EngineRequest) -> list[EngineOutput]:
    """All outputs of an engine for one request."""
    engine.add(request)
    found: list[EngineOutput] = []
    while not found or found[-1].finish is None:
        engine.check()
        found += engine.collect()
    return found


def test_refused_weights_with_nan_or_infinity_leave_no_trace(folder: Path, variant: Variant) -> None:
    # The usual response fills all blocks, so each that has held NaN is used again.
    small = model(folder, max_model_len=128, num_gpu_blocks_override=5)
    engine = VllmEngine(small, Parallelism(), Sampling(), cache_salt="job@initial")
    player = Player(engine)
    before = player.one(GREEDY)
    story = asyncio.Runner()
    for number, value in enumerate((math.nan, math.inf)):
        with pytest.raises(LoadError, match=r"8 tokens were scored after the load: token 1: found log-probability nan"):
            story.run(engine.load_weights(NewWeights(f"job@v{number}", variant(value))))
    # The worker serves nothing now; the engine's responses are tested, with and without log-probabilities.
    story.run(give_nan(engine, variant(math.nan)))
    assert player.one(GREEDY, 4).logprobs == pytest.approx([math.nan] * 4, nan_ok=True)
    (silent, *_) = outputs(engine, work(Sampling(temperature=0, logprobs="none", ignore_eos=True), 4))
    assert (silent.logprobs, silent.unscored) == (b"", 0)
    story.run(engine.load_weights(NewWeights("job@initial#3")))
    after = player.one(GREEDY)
    assert (after.tokens, after.finish) == (before.tokens, FinishReason.LENGTH)
    assert all(map(math.isfinite, after.logprobs))
    scored = outputs(engine, work(Sampling(temperature=0, logprobs="none", ignore_eos=True), 4))
    assert {output.unscored for output in scored} == {None}
    assert b"".join(output.tokens for output in scored) == pack_tokens(before.tokens[:4])
    story.run(engine.close())
    story.close()


def test_an_engine_without_log_probabilities_counts_nan_in_the_logits(folder: Path, variant: Variant) -> None:
    silent = Sampling(temperature=0, logprobs="none", ignore_eos=True)
    engine = VllmEngine(model(folder), Parallelism(), silent, cache_salt="job@initial")
    engine.start(lambda: None)
    with asyncio.Runner() as story:
        assert {output.unscored for output in outputs(engine, work(silent, 4))} == {None}
        story.run(give_nan(engine, variant(math.nan)))
        assert outputs(engine, work(silent, 4))[0].unscored == 0
        story.run(engine.close())


async def give_nan(engine: VllmEngine, folder: Path) -> None:
    with pytest.raises(LoadError):
        await engine.load_weights(NewWeights("job@v2", folder))


def test_a_model_with_non_finite_scores_is_refused_at_the_start(variant: Variant) -> None:
    path = variant(math.nan)
    with pytest.raises(ModelError) as caught:
        VllmEngine(model(path), Parallelism(), Sampling(), cache_salt="x")
    assert str(caught.value) == (
        f"spec.model.path: {path}: 8 tokens were scored after the load: token 1: found log-probability nan, allowed: a "
        "finite number; the weights are damaged, or their values too large for float32: publish others, or set "
        "spec.model.dtype"
    )
