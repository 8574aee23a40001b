"""The real engine with new weights: loaded in place, verified by scores, without traces of the old ones."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import LoadError
from openseer_core.manifest.job import Model, Parallelism, Sampling
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_core.weights.canary import CANARY_TOLERANCE
from openseer_worker.engine import EngineRequest, NewWeights
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build, prepare
from tests.repository import ROOT

pytestmark = [
    pytest.mark.engine,
    # Three engines, and vLLM's import on a busy machine.
    pytest.mark.timeout(600),
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

OWN = ROOT / "examples" / "tiny-model" / "model"
# The prompt must have whole blocks and a partial one.
TOKENS = [(7 * place) % 60 + 2 for place in range(200)]
PROMPT, MAX_TOKENS = TOKENS[:100], 60
GREEDY = Sampling(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of the same shape with other weights."""
    prepare()
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    folders = (tmp_path_factory.mktemp("v1"), tmp_path_factory.mktemp("v2"))
    for seed, folder in enumerate(folders):
        shutil.copytree(OWN, folder, dirs_exist_ok=True)
        random = torch.Generator().manual_seed(seed)
        tensors = load_file(OWN / "model.safetensors")
        for name, tensor in tensors.items():
            tensors[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=random).to(tensor.dtype)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folders


def forward(folder: Path, tokens: list[int]) -> list[float]:
    """Log-probabilities of `tokens[1:]`, computed without vLLM."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return found[range(len(tokens) - 1), tokens[1:]].tolist()


async def generate(engine: VllmEngine, key: str) -> tuple[list[int], list[float]]:
    """A greedy response to the usual prompt."""
    engine.add(EngineRequest(key, "g", 0, PROMPT, [], MAX_TOKENS, GREEDY))
    tokens: list[int] = []
    logprobs: list[float] = []
    while True:
        engine.check()
        for progress in engine.collect():
            tokens += unpack_tokens(progress.tokens)
            logprobs += unpack_logprobs(progress.logprobs)
            if progress.finish is not None:
                assert progress.finish is FinishReason.LENGTH
                return tokens, logprobs
        await asyncio.sleep(0.01)


def play(folder: Path, story: Callable[[VllmEngine], Coroutine[Any, Any, None]], **arguments: Any) -> None:
    """Runs `story` with an engine that was started with the weights of that folder."""
    small = {"max_model_len": 256, "num_gpu_blocks_override": 65, "max_num_seqs": 4}
    model = Model(path=str(folder), dtype="float32", engine_args=small | arguments)
    engine = VllmEngine(model, Parallelism(), Sampling(), cache_salt="job@initial")

    async def main() -> None:
        engine.start(lambda: None)
        try:
            await story(engine)
        finally:
            await engine.close()

    asyncio.run(main())


def close(scored: list[float], expected: list[float]) -> bool:
    assert len(scored) == len(expected)
    return (
        max(abs(score - wanted) for score, wanted in zip(scored, expected, strict=True)) < CANARY_TOLERANCE["float32"]
    )


def test_after_a_load_the_engine_equals_one_started_with_those_weights(others: tuple[Path, Path]) -> None:
    first, second = others
    fresh: dict[str, tuple[list[int], list[float]]] = {}

    async def begin(engine: VllmEngine) -> None:
        fresh["second"] = await generate(engine, "a")

    async def change(engine: VllmEngine) -> None:
        old = await generate(engine, "a")
        assert close(await engine.score(TOKENS), forward(OWN, TOKENS))
        await engine.load_weights(NewWeights("job@v1#1", first))
        assert close(await engine.score(TOKENS), forward(first, TOKENS))
        cached = int(engine.metrics()["context_cached"])
        await engine.load_weights(NewWeights("job@v2#2", second))
        assert close(await engine.score(TOKENS), forward(second, TOKENS))
        assert not close(await engine.score(TOKENS), forward(first, TOKENS))
        new = await generate(engine, "b")
        assert int(engine.metrics()["context_cached"]) == cached
        assert new[0] == fresh["second"][0] != old[0]
        assert new[1] == pytest.approx(fresh["second"][1], abs=1e-4)
        # The prompt's cached blocks are also of the new model.
        again = await generate(engine, "c")
        assert int(engine.metrics()["context_cached"]) > cached
        assert again[0] == new[0]
        everything = forward(second, PROMPT + again[0])[len(PROMPT) - 1 :]
        assert again[1] == pytest.approx(everything, abs=2e-4)
        await engine.load_weights(NewWeights("job@initial#3"))
        assert (await generate(engine, "d"))[0] == old[0]

    play(second, begin)
    play(OWN, change)


def test_a_long_canary_is_scored_piece_by_piece(others: tuple[Path, Path]) -> None:
    async def story(engine: VllmEngine) -> None:
        assert close(await engine.score(TOKENS), forward(others[0], TOKENS))
        with pytest.raises(LoadError, match="found 256 tokens, this engine's context takes 255"):
            await engine.score([5] * 256)
        assert not await engine.sleep(keep_weights=False)
        await engine.wake(weights_only=True)
        await engine.load_weights(NewWeights("x", others[1]))
        await engine.wake(weights_only=False)
        await engine.check_weights()
        assert close(await engine.score(TOKENS), forward(others[1], TOKENS))
        await generate(engine, "a")

    play(others[0], story, max_num_batched_tokens=64, enable_chunked_prefill=True)


def test_unfitting_weights_are_refused_and_the_engine_continues(others: tuple[Path, Path], tmp_path: Path) -> None:
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    def variant(name: str, **changes: Any) -> Path:
        tensors = load_file(OWN / "model.safetensors") | changes
        folder = tmp_path / name
        shutil.copytree(OWN, folder)
        kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    norm = "model.norm.weight"

    async def story(engine: VllmEngine) -> None:
        for folder, reason in (
            (variant("without", **{norm: None}), f"lacks tensor {norm}"),
            (variant("short", **{norm: torch.ones(3)}), rf"{norm} has shape \[3\]"),
            (variant("strange", **{"model.layers.9.what.weight": torch.ones(3)}), "the engine: "),
            (tmp_path / "nowhere", "there is no folder"),
        ):
            with pytest.raises(LoadError, match=reason):
                await engine.load_weights(NewWeights("x", folder))
        engine.add(EngineRequest("long", "g", 0, PROMPT, [], 150, GREEDY))
        with pytest.raises(LoadError, match="1 responses are still running"):
            await engine.load_weights(NewWeights("x", others[0]))
        engine.abort("long")
        await engine.load_weights(NewWeights("job@v1#1", others[0]))
        assert close(await engine.score(TOKENS), forward(others[0], TOKENS))
        await engine.close()
        with pytest.raises(LoadError, match="the engine has ended"):
            await engine.score(TOKENS)

    play(OWN, story)
