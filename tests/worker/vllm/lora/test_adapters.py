"""The real engine with LoRA adapters: each request equals that of the merged model, beside others, with drafts, after
swaps."""

import asyncio
import json
import time
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from openseer_core.errors import LoadError, ModelError
from openseer_core.manifest.job import Lora, Model, Parallelism, Sampling, Speculation
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_core.weights.canary import CANARY_TOLERANCE
from openseer_worker.engine import DraftNews, DraftTokens, EngineOutput, EngineRequest, NewAdapter, NewWeights
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build, prepare
from openseer_worker.weights.adapter_files import AdapterCheck
from tests.worker.drafting import drafting_player
from tests.worker.vllm.lora.made import OWN, make_adapter, merged

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

PROMPT = [(7 * place) % 60 + 2 for place in range(70)]
MAX_TOKENS = 48
GREEDY = Sampling(temperature=0, ignore_eos=True, max_tokens=MAX_TOKENS)
STEP_SECONDS = 0.2
"""Of some thirty steps that a response takes with drafts."""
LORA = Lora(max_rank=4, max_adapters=2)
ARGUMENTS = {"max_model_len": 256, "num_gpu_blocks_override": 129, "max_num_seqs": 6, "max_num_batched_tokens": 512}


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    """An engine with adapters that also drafts."""
    with drafting_player(OWN, lora=LORA, dtype="float32", engine_args=ARGUMENTS) as player:
        yield player.engine


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of adapters by name, of the merged models under "=" and the name, of the base model under ""."""
    prepare()
    root = tmp_path_factory.mktemp("adapters")
    found = {"": OWN}
    for seed, name in enumerate(("a1", "a2", "b1")):
        found[name] = make_adapter(root / name, seed)
        found[f"={name}"] = merged(found[name], root / f"{name}-merged")
    return found


def forward(folder: Path, tokens: list[int]) -> tuple[list[float], list[int]]:
    """Log-probabilities of `tokens[1:]`, and the most probable tokens at their positions, computed without vLLM."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return found[range(len(tokens) - 1), tokens[1:]].tolist(), found[:-1].argmax(-1).tolist()


async def run(engine: VllmEngine, requests: list[EngineRequest]) -> dict[str, EngineOutput]:
    """Runs requests concurrently and returns their responses by key."""
    for request in requests:
        engine.add(request)
    outputs: dict[str, EngineOutput] = {}
    while sum(output.finish is not None for output in outputs.values()) < len(requests):
        engine.check()
        for output in engine.collect():
            if output.key in outputs:
                outputs[output.key].add(output)
            else:
                outputs[output.key] = output
        await asyncio.sleep(0.01)
    return outputs


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def request(key: str, adapter: str, group: str = "") -> EngineRequest:
    return EngineRequest(key, group or key, 0, PROMPT, [], MAX_TOKENS, GREEDY, adapter=adapter)


def expect(output: EngineOutput, folder: Path) -> None:
    """Asserts a greedy response of the model in that folder."""
    tokens = unpack_tokens(output.tokens)
    assert output.finish is FinishReason.LENGTH
    logprobs, best = forward(folder, PROMPT + tokens)
    assert tokens == best[len(PROMPT) - 1 :]
    assert unpack_logprobs(output.logprobs) == pytest.approx(logprobs[len(PROMPT) - 1 :], abs=2e-4)


def test_each_request_of_a_mixed_batch_uses_its_own_adapter(engine: VllmEngine, folders: dict[str, Path]) -> None:
    async def story() -> None:
        for name in ("a1", "b1"):
            await engine.load_adapter(NewAdapter(name, f"job@{name}", folders[name]))
        wanted = ["", "a1", "b1", "a1", ""]
        first = await run(engine, [request(f"{place}", name) for place, name in enumerate(wanted)])
        for place, name in enumerate(wanted):
            expect(first[f"{place}"], folders[f"={name}" if name else ""])
        assert len({first[f"{place}"].tokens for place in range(3)}) == 3
        # Again, from cached prompts and with drafts from the same adapter's responses.
        drafts = [DraftTokens(f"again-{name}", 1, 0, first[f"{place}"].tokens) for place, name in enumerate(wanted[:3])]
        await engine.feed(DraftNews(tokens=drafts))
        cached, accepted = (int(engine.metrics()[name]) for name in ("context_cached", "accepted_tokens"))
        again = await run(engine, [request(f"r{name}", name, f"again-{name}") for name in wanted[:3]])
        for place, name in enumerate(wanted[:3]):
            assert again[f"r{name}"].tokens == first[f"{place}"].tokens
        await engine.feed(DraftNews())  # news are taken once the metrics cover all responses
        assert int(engine.metrics()["context_cached"]) > cached
        assert int(engine.metrics()["accepted_tokens"]) > accepted

    play(story())


def test_given_tokens_are_scored_as_the_merged_model_does(engine: VllmEngine, folders: dict[str, Path]) -> None:
    def scoring(name: str) -> EngineRequest:
        return EngineRequest(f"s{name}", f"s{name}", 0, PROMPT, [], 1, Sampling(score_from=3), adapter=name)

    async def story() -> None:
        for name in ("a1", "b1"):
            await engine.load_adapter(NewAdapter(name, f"job@{name}#s", folders[name]))
        found = await run(engine, [*map(scoring, ("", "a1", "b1")), request("sampled", "a1")])
        for name in ("", "a1", "b1"):
            wanted = forward(folders[f"={name}" if name else ""], PROMPT)[0][2:]
            assert unpack_tokens(found[f"s{name}"].tokens) == PROMPT[3:]
            assert unpack_logprobs(found[f"s{name}"].logprobs) == pytest.approx(wanted, abs=2e-4)
        expect(found["sampled"], folders["=a1"])

    play(story())


def test_an_adapter_is_swapped_and_scored_beside_running_requests(engine: VllmEngine, folders: dict[str, Path]) -> None:
    def close(scored: list[float], folder: Path) -> bool:
        wanted = forward(folder, PROMPT)[0]
        return max(abs(one - other) for one, other in zip(scored, wanted, strict=True)) < CANARY_TOLERANCE["float32"]

    async def story() -> None:
        await engine.load_adapter(NewAdapter("a1", "job@a1#2", folders["a1"]))
        running = asyncio.create_task(run(engine, [request("base", ""), request("old", "a1")]))
        await asyncio.sleep(0.02)
        await engine.load_adapter(NewAdapter("a2", "job@a2", folders["a2"]))
        assert close(await engine.score(PROMPT, "a2"), folders["=a2"])
        assert not close(await engine.score(PROMPT, "a2"), folders["=a1"])
        found = await running
        expect(found["base"], OWN)
        expect(found["old"], folders["=a1"])
        await engine.drop_adapter("a1")
        expect((await run(engine, [request("new", "a2")]))["new"], folders["=a2"])
        gone = (await run(engine, [request("gone", "a1")]))["gone"]
        assert (gone.finish, gone.tokens) == (FinishReason.ABORTED, b"")

    play(story())


def test_new_base_weights_remove_the_adapters(engine: VllmEngine, folders: dict[str, Path]) -> None:
    async def story() -> None:
        await engine.load_adapter(NewAdapter("a1", "job@a1#3", folders["a1"]))
        await engine.load_weights(NewWeights("job@v1", folders["=b1"]))
        found = await run(engine, [request("weights", ""), request("adapter", "a1")])
        expect(found["weights"], folders["=b1"])
        assert found["adapter"].finish is FinishReason.ABORTED
        await engine.load_weights(NewWeights("job@initial#2"))
        await engine.load_adapter(NewAdapter("a1", "job@a1#4", folders["a1"]))
        expect((await run(engine, [request("again", "a1")]))["again"], folders["=a1"])

    play(story())


def test_an_adapter_that_does_not_fit_leaves_the_engine_unchanged(
    engine: VllmEngine, tmp_path: Path, folders: dict[str, Path]
) -> None:
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    large, wrong = make_adapter(tmp_path / "large", 9, rank=16), make_adapter(tmp_path / "wrong", 9)
    tensors = load_file(wrong / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    save_file(tensors | {name: torch.full_like(tensors[name], float("nan"))}, wrong / "adapter_model.safetensors")

    async def story() -> None:
        with pytest.raises(LoadError, match="LoRA rank 16 is greater than max_lora_rank 8"):
            await engine.load_adapter(NewAdapter("large", "job@large", large))
        with pytest.raises(LoadError, match="after the load"):
            await engine.load_adapter(NewAdapter("wrong", "job@wrong", wrong))
        await engine.drop_adapter("wrong")
        assert (await run(engine, [request("x", "large")]))["x"].finish is FinishReason.ABORTED
        expect((await run(engine, [request("y", "")]))["y"], OWN)

    play(story())


def test_a_step_has_room_for_the_drafts_of_all_its_requests() -> None:
    assert steps(max_num_seqs=128) == 128 * 17
    assert steps(max_num_seqs=128, max_num_batched_tokens=4096) == 4096
    with pytest.raises(
        ModelError, match="max_num_batched_tokens: found 1024, needed with adapters and drafts: at least"
    ):
        steps(max_num_seqs=128, max_num_batched_tokens=1024)


def steps(**own: Any) -> int:
    """Token limit per step of an engine with adapters that drafts up to 16 tokens, without building it."""
    from openseer_worker.vllm import arguments, configuration  # noqa: PLC0415 - vLLM

    model = Model(path=str(OWN), lora=LORA, engine_args=own)
    made = arguments.engine_arguments(model, Parallelism(), "none", on_cpu=True, speculation=Speculation(max_tokens=16))
    return int(configuration.create(made).scheduler_config.max_num_batched_tokens)


def test_a_load_that_fails_halfway_leaves_the_adapters_slot_empty(
    engine: VllmEngine, tmp_path: Path, folders: dict[str, Path]
) -> None:
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    torn = make_adapter(tmp_path / "torn", 9)
    tensors = load_file(torn / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    save_file(tensors | {name: torch.ones(4096, 4)}, torn / "adapter_model.safetensors")

    async def story() -> None:
        await engine.load_adapter(NewAdapter("a1", "job@a1#5", folders["a1"]))
        await engine.drop_adapter("a2")
        for number in range(5):
            with pytest.raises(LoadError):
                await engine.load_adapter(NewAdapter(f"torn{number}", f"job@torn{number}", torn))
        await engine.load_adapter(NewAdapter("b1", "job@b1#5", folders["b1"]))
        found = await run(engine, [request(f"t-{name}", name) for name in ("", "a1", "b1")])
        for name in ("", "a1", "b1"):
            expect(found[f"t-{name}"], folders[f"={name}" if name else ""])
        for name in ("a1", "b1"):
            await engine.drop_adapter(name)

    play(story())


def test_an_adapter_with_unknown_modules_is_refused(
    engine: VllmEngine, tmp_path: Path, folders: dict[str, Path]
) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    other = make_adapter(tmp_path / "other", 9)
    tensors = load_file(other / "adapter_model.safetensors")
    for old, new, shown in ((".layers.1.", ".layers.9.", "layers.9"), (".model.model.", ".model.", "layers.0")):
        moved = {name.replace(old, new): tensor for name, tensor in tensors.items()}
        save_file(moved, other / "adapter_model.safetensors")

        async def story(shown: str = shown) -> None:
            with pytest.raises(LoadError, match=f"the model has no module .*{shown}"):
                await engine.load_adapter(NewAdapter("other", "job@other", other))
            await engine.drop_adapter("other")
            expect((await run(engine, [request(f"m-{shown}", "")]))[f"m-{shown}"], OWN)

        play(story())


def test_adapters_with_settings_per_module_match_peft(engine: VllmEngine, tmp_path: Path) -> None:
    from peft import PeftModel  # noqa: PLC0415 - heavy
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    ranks = {r"layers\.1\.self_attn\.q_proj": 2, "o_proj": 3, "gate_proj": 1}
    folder = make_adapter(
        tmp_path / "varied",
        11,
        scale=0.1,
        rank_pattern=ranks,
        alpha_pattern={"v_proj": 32, r".*\.1\.mlp\.up_proj": 2, "q_proj": 16},
        use_rslora=True,
        base_model_name_or_path=str(OWN),
    )
    tensors: dict[str, Any] = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        if ".layers.0.self_attn.k_proj." in name:
            continue  # a module of a packed layer that the adapter does not change
        keys = {"layers.1.self_attn.q_proj": 2, "o_proj": 3, "gate_proj": 1}
        rank = next((rank for key, rank in keys.items() if f"{key}.lora" in name), 4)
        tensors[name] = (tensor[:rank] if "lora_A" in name else tensor[:, :rank]).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"exclude_modules": r".*layers\.0\.self_attn\.k_proj"})
    )
    AdapterCheck(Model(path=str(OWN), lora=LORA))(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(OWN, dtype="float32")
    peft: Any = PeftModel.from_pretrained(model, folder).merge_and_unload()
    peft.save_pretrained(tmp_path / "merged")

    async def story() -> None:
        await engine.load_adapter(NewAdapter("varied", "job@varied", folder))
        expect((await run(engine, [request("varied", "varied")]))["varied"], tmp_path / "merged")
        await engine.drop_adapter("varied")

    play(story())


@contextmanager
def slow_steps(engine: VllmEngine) -> Generator[None]:
    """Slows steps, so that requests still run while the test acts beside them."""
    core = cast("Any", engine)._core
    step = core.get_output

    def slow() -> Any:
        time.sleep(STEP_SECONDS)
        return step()

    core.get_output = slow
    try:
        yield
    finally:
        del core.get_output


def test_an_adapter_is_loaded_beside_a_full_load_of_requests(engine: VllmEngine, folders: dict[str, Path]) -> None:
    async def story() -> None:
        keys = [f"l{number}" for number in range(engine.profile.slots)]
        running = asyncio.create_task(run(engine, [EngineRequest(k, k, 0, PROMPT, [], 180, GREEDY) for k in keys]))
        with slow_steps(engine):
            await asyncio.sleep(0.05)
            await engine.load_adapter(NewAdapter("a1", "job@a1#6", folders["a1"]))
            assert not running.done()
        assert all(output.finish is FinishReason.LENGTH for output in (await running).values())

    play(story())


def test_requests_can_be_aborted_while_a_score_waits_for_a_slot(engine: VllmEngine, folders: dict[str, Path]) -> None:
    async def story() -> None:
        keys = [f"f{number}" for number in range(engine.profile.slots + 1)]
        running = asyncio.create_task(run(engine, [EngineRequest(k, k, 0, PROMPT, [], 180, GREEDY) for k in keys]))
        with slow_steps(engine):
            await asyncio.sleep(0.05)
            scoring = asyncio.create_task(engine.score(PROMPT, "a1"))
            await asyncio.sleep(0.05)
            engine.abort("f0")
            await scoring
            assert not running.done()
        assert (await running)["f0"].finish is FinishReason.ABORTED
        await engine.drop_adapter("a1")

    play(story())
