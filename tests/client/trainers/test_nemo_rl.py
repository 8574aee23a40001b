"""NeMo-RL's calls, replayed against a real server: batches, weights by folder, lent GPUs."""

import asyncio
import importlib
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from openseer_client import Client, ConflictError, GroupsLostError
from openseer_core.errors import InputError
from openseer_core.ids import GroupId
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_worker.scripted.text import scripted_logprobs, scripted_tokens
from tests.api.served import TOKEN, Served, served
from tests.client.trainers import nemo_rl_stand_in as nemo

ONE, TWO = [5, 6, 7], [8, 9, 10, 11, 12]
MIXED = [ONE, TWO, ONE, TWO, ONE]
"""Five rows of two prompts, whose order is not the groups'."""


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter's module, imported with stand-ins for NeMo-RL."""
    for name, module in nemo.stand_in_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "openseer_client.nemo_rl", raising=False)
    return importlib.import_module("openseer_client.nemo_rl")


def trained(adapter: Any, server: Served, folder: Path, **more: Any) -> tuple[Any, Any, Any]:
    """A configuration, and the policy and generation that NeMo-RL's setup makes of it after `install`."""
    config = nemo.Config()
    adapter.install(adapter.Fleet(str(folder), url=server.url, token=TOKEN, run="math", **more))
    grpo: Any = sys.modules["nemo_rl.algorithms.grpo"]
    policy, generation, *_ = grpo.setup(config, None, None, val_dataset=None)
    return config, policy, generation


async def generated(generation: Any, data: Any, *, greedy: bool = False) -> Any:
    """Calls the generation as rollouts.py does, in a separate thread."""
    return await asyncio.to_thread(generation.generate, data, greedy=greedy)


async def sealed(server: Served, number: int) -> None:
    """Waits until that batch has all its groups."""
    while True:
        batches = (await server.call("GET", "/batches"))["batches"]
        if any(batch["id"] == number and batch["state"] == "sealed" for batch in batches):
            return
        await asyncio.sleep(0.02)


def parameters(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)[1:]


def test_the_class_has_every_method_of_the_interface(adapter: Any) -> None:
    assert issubclass(adapter.Generation, nemo.GenerationInterface)
    assert not inspect.isabstract(adapter.Generation)
    assert not inspect.isabstract(adapter.FolderSync)
    for name, expected in (nemo.ABSTRACT | nemo.HOOKS).items():
        assert parameters(getattr(adapter.Generation, name)) == expected, name


async def test_a_batch_returns_with_the_expected_fields_shapes_and_dtypes(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        _, _, generation = trained(adapter, server, tmp_path)
        found = await generated(generation, nemo.batch(MIXED))
    assert {name: (value.dtype, value.ndim) for name, value in found.items()} == nemo.OUTPUT
    lengths, ends = found["generation_lengths"].tolist(), found["unpadded_sequence_lengths"].tolist()
    assert found["output_ids"].shape == found["logprobs"].shape == (5, max(ends))
    assert [end - length for end, length in zip(ends, lengths, strict=True)] == [len(row) for row in MIXED]
    # The third row of a prompt is the third response of its group.
    places = [("1/p0", 0), ("1/p1", 0), ("1/p0", 1), ("1/p1", 1), ("1/p0", 2)]
    for row, (prompt, place) in enumerate(zip(MIXED, places, strict=True)):
        tokens, logprobs = (of(*place, 0, lengths[row]) for of in (scripted_tokens, scripted_logprobs))
        padding = [0] * (max(ends) - ends[row])
        assert found["output_ids"][row].tolist() == [*prompt, *unpack_tokens(tokens), *padding]
        assert found["logprobs"][row].tolist() == [*([0.0] * len(prompt)), *unpack_logprobs(logprobs), *padding]


async def test_equal_rows_form_one_group_and_stops_are_per_row(adapter: Any, tmp_path: Path) -> None:
    async with served(held=True) as server:
        config, _, generation = trained(adapter, server, tmp_path)
        config.policy["generation"] |= {"ignore_eos": True, "stop_strings": ["###"]}
        stops = [["\n"], None, ["\n"], "END", ["\n"]]
        work = asyncio.create_task(generated(generation, nemo.batch(MIXED, stop_strings=stops), greedy=True))
        await sealed(server, 1)
        specs = [await server.store.spec(GroupId(1, f"p{number}")) for number in range(3)]
        server.release()
        found = await work
    submitted = [(spec.size, parse_sampling(spec.sampling)) for spec in specs if spec]
    stops_of = [(size, sampling.stop) for size, sampling in submitted]
    assert stops_of == [(3, ("###", "\n")), (1, ("###",)), (1, ("###", "END"))]
    assert {(sampling.temperature, sampling.stop_token_ids) for _, sampling in submitted} == {(0.0, (2,))}
    assert found["truncated"].tolist() == [True] * 5


async def test_no_row_exceeds_the_trainers_context_limit(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        config, _, generation = trained(adapter, server, tmp_path)
        config.policy["generation"] |= {"ignore_eos": True, "vllm_cfg": {"max_model_len": 20}}
        found = await generated(generation, nemo.batch([ONE, TWO]))
        assert found["unpadded_sequence_lengths"].tolist() == [20, 20]
        with pytest.raises(InputError, match="input_lengths: found 20, needed: less than"):
            await generated(generation, nemo.batch([[7] * 20]))


async def test_a_batch_without_rows_makes_no_call(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        _, _, generation = trained(adapter, server, tmp_path)
        found = await generated(generation, nemo.batch([]))
        assert await server.call("GET", "/batches") == {"batches": []}
    assert {name: len(value) for name, value in found.items()} == dict.fromkeys(nemo.OUTPUT, 0)


@pytest.mark.parametrize("whole_batch", [True, False], ids=["batch", "response"])
async def test_cancelled_responses_are_sampled_again(adapter: Any, tmp_path: Path, *, whole_batch: bool) -> None:
    async with served(held=True) as server:
        config, _, generation = trained(adapter, server, tmp_path)
        config.policy["generation"]["ignore_eos"] = True
        work = asyncio.create_task(generated(generation, nemo.batch(MIXED)))
        await sealed(server, 1)
        what = {} if whole_batch else {"groups": ["p0"], "index": 1}
        await server.call("POST", "/batches/1/cancel", what)
        server.release()
        found = await work
    assert found["generation_lengths"].tolist() == [40] * 5
    again = unpack_tokens(scripted_tokens("2/p0", 0, 0, 40))
    assert found["output_ids"][0].tolist()[3:43] == list(again)


async def test_responses_lost_twice_fail_the_step(adapter: Any, tmp_path: Path) -> None:
    async with served(held=True) as server:
        config, _, generation = trained(adapter, server, tmp_path)
        config.policy["generation"]["ignore_eos"] = True
        work = asyncio.create_task(generated(generation, nemo.batch(MIXED)))
        for batch in (1, 2):
            await sealed(server, batch)
            await server.call("POST", f"/batches/{batch}/cancel", {})
        with pytest.raises(GroupsLostError, match="p0: 0 of 3 whole, 3 aborted"):
            await work


async def test_weights_published_between_batches_sample_the_next_one(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        _, policy, generation = trained(adapter, server, tmp_path)
        assert generation.weight_synchronizer.is_stale
        for content in ("first", "second"):
            policy.content = content
            assert await asyncio.to_thread(nemo.refit_policy_generation, policy, generation) == {}
            found = await generated(generation, nemo.batch(MIXED))
            assert found["generation_lengths"].min() > 0
            assert (await server.call("GET", "/weights"))["version"] == generation.version
            saved = tmp_path / generation.version
            assert [file.name for file in saved.glob("[!.]*")] == ["model.safetensors"]
            assert saved.joinpath("model.safetensors").read_bytes().endswith(content.encode())
        assert not generation.weight_synchronizer.is_stale
        assert generation.version.startswith("math-")
        assert generation.version.endswith("-2")
        assert policy.calls == ["save_checkpoint"] * 2


async def test_weights_of_another_publisher_are_never_sampled_from(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        _, policy, generation = trained(adapter, server, tmp_path)
        await asyncio.to_thread(nemo.refit_policy_generation, policy, generation)
        nemo.write_weights(tmp_path / "other", "other")
        await server.call(
            "POST", "/weights", {"version": "other", "source": {"path": str(tmp_path / "other")}}, status=202
        )
        while (await server.call("GET", "/weights"))["version"] != "other":
            await asyncio.sleep(0.02)
        with pytest.raises(ConflictError, match="other"):
            await generated(generation, nemo.batch(MIXED))
        # A copy in another process has no version, so it reads the served one.
        copy = pickle.loads(pickle.dumps(generation))
        assert (copy.version, copy.weight_synchronizer) == ("", None)
        assert len((await generated(copy, nemo.batch(MIXED)))["output_ids"]) == 5


async def test_the_first_publication_deletes_batches_of_an_earlier_process(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        await server.open(metadata={"run": "math"})
        await server.open(metadata={"run": "physics"})
        _, policy, generation = trained(adapter, server, tmp_path, mode="keep")
        await asyncio.to_thread(nemo.refit_policy_generation, policy, generation)
        assert [found["id"] for found in (await server.call("GET", "/batches"))["batches"]] == [2]


async def test_colocated_engines_sleep_while_the_policy_trains(adapter: Any, tmp_path: Path) -> None:
    async with served() as server:
        _, policy, generation = await asyncio.to_thread(trained, adapter, server, tmp_path, share_gpus=True)
        with Client(server.url, token=TOKEN) as client:
            assert (await asyncio.to_thread(client.fleet)).state == "released"
            await asyncio.to_thread(nemo.refit_policy_generation, policy, generation)
            assert policy.calls == ["save_checkpoint", "offload_after_refit"]
            assert (await asyncio.to_thread(client.fleet)).state == "awake"
            assert await asyncio.to_thread(generation.finish_generation, release_gpu=False)
            assert (await asyncio.to_thread(client.fleet)).state == "awake"
            assert await asyncio.to_thread(generation.finish_generation)
            assert await asyncio.to_thread(generation.prepare_for_generation, tags=["weights"])
            assert (await asyncio.to_thread(client.fleet)).awake == ["weights"]
            assert await asyncio.to_thread(generation.prepare_for_generation)
            assert await asyncio.to_thread(generation.prepare_for_generation)
        assert len((await generated(generation, nemo.batch(MIXED)))["output_ids"]) == 5


@pytest.fixture
def alone(adapter: Any, tmp_path: Path) -> Any:
    """A generation without a server."""
    fleet = adapter.Fleet(str(tmp_path), url="http://127.0.0.1:9", token="none")
    return adapter.Generation(fleet, None, nemo.Config().policy["generation"])


def test_engines_on_their_own_gpus_get_no_calls_between_phases(alone: Any) -> None:
    assert alone.prepare_for_generation(tags=["weights"])
    assert alone.finish_generation()
    assert alone.invalidate_kv_cache()
    assert alone.shutdown()
    assert alone.shutdown()
    assert alone.prepare_refit_info({}) is None


@pytest.mark.parametrize("call", ["update_weights_via_ipc_zmq", "update_weights_from_collective"])
def test_a_transport_of_nemo_rls_own_is_refused(alone: Any, call: str) -> None:
    with pytest.raises(InputError, match=f"{call}: weights reach the fleet through a folder"):
        getattr(alone, call)()
    with pytest.raises(InputError, match="init_collective: weights reach"):
        alone.init_collective("127.0.0.1", 1, 2, train_world_size=1)


def test_rows_that_are_no_plain_prompts_are_refused(alone: Any) -> None:
    with pytest.raises(InputError, match="vllm_content: openseer takes token ids only"):
        alone.generate(nemo.batch([ONE], vllm_content=["<image>"]))
    with pytest.raises(InputError, match="stop_strings: found 1, needed: one entry for each of 2 rows"):
        alone.generate(nemo.batch([ONE, TWO], stop_strings=[None]))
    padded_left = nemo.batch([ONE, TWO]) | {"input_ids": torch.tensor([[0, 0, *ONE], TWO])}
    with pytest.raises(ValueError, match="Non-padding values"):
        alone.generate(padded_left)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generation.backend", "sglang"),
        ("generation.colocated.enabled", False),
        ("generation.vllm_cfg.async_engine", True),
        ("generation.refit_transport", "nixl"),
        ("generation.bad_words", ["no"]),
        ("dtensor_cfg.enabled", False),
        ("dtensor_cfg._v2", False),
        ("dtensor_cfg.lora_cfg.enabled", True),
        ("router_replay.enabled", True),
    ],
)
def test_unsupported_settings_are_refused_before_setup(adapter: Any, path: str, value: object) -> None:
    config = nemo.Config()
    *folders, last = path.split(".")
    at = config.policy
    for name in folders:
        at = at.setdefault(name, {})
    at[last] = value
    adapter.install(adapter.Fleet("weights", url="http://127.0.0.1:9", token="none"))
    grpo: Any = sys.modules["nemo_rl.algorithms.grpo"]
    with pytest.raises(InputError, match=f"policy.{path}: found .*, needed: "):
        grpo.setup(config, None, None, None)


def test_a_policy_without_whole_safetensors_publishes_nothing(adapter: Any, alone: Any, tmp_path: Path) -> None:
    policy = nemo.Policy(consolidates=False)
    with pytest.raises(InputError, match="saved no safetensors in"):
        adapter.FolderSync(alone.fleet, policy, alone).sync_weights()
    with pytest.raises(InputError, match="kv_scales"):
        adapter.FolderSync(alone.fleet, policy, alone).sync_weights(kv_scales={"k": 1.0})
    assert list(tmp_path.iterdir()) == []
    assert alone.version == ""


def test_nemo_gym_is_refused(adapter: Any) -> None:
    with pytest.raises(InputError, match="NeMo-Gym"):
        adapter.Generation(None, cluster=None, config={}, defer_model_load=True)


def test_settings_invalid_for_any_publication_are_refused_at_once(
    adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="version"):
        adapter.Fleet("weights", run="a name/with more")
    with pytest.raises(ValidationError, match="mode"):
        adapter.Fleet("weights", mode="later")
    monkeypatch.delenv("OPENSEER_URL", raising=False)
    with pytest.raises(InputError, match="OPENSEER_URL"):
        adapter.install(adapter.Fleet("weights"))
