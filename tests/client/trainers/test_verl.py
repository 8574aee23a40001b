"""verl's interfaces are implemented: as recorded from verl 0.9.1, and against verl itself where it is installed."""

# verl, Ray and OmegaConf are no dependencies: they are Any here.
# pyright: reportMissingImports=false

import importlib
import importlib.util
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from openseer_client.verl import Router, Server, generation, steps_of
from openseer_core.errors import InputError
from tests.client.trainers.sglang_route import generating

# RequestLoadBalancer of verl/workers/rollout/router.py, verl 0.9.1: name → parameters after self.
LOAD_BALANCER_0_9_1 = {
    "acquire_server": [("request_id", "POSITIONAL_OR_KEYWORD"), ("extra", "VAR_KEYWORD")],
    "require_acquire_fields": [],
    "require_release_fields": [],
    "release_server": [("server_id", "POSITIONAL_OR_KEYWORD"), ("request_id", "POSITIONAL_OR_KEYWORD")],
    "add_servers": [("servers", "POSITIONAL_OR_KEYWORD")],
    "remove_servers": [("server_ids", "POSITIONAL_OR_KEYWORD")],
    "get_all_servers": [],
    "get_status": [],
    "clear_sticky_cache": [],
    "get_total_inflight": [],
}
# What LLMServerClient.generate of verl/workers/rollout/llm_server.py, 0.9.1, passes to `server.generate.remote`.
GENERATE_0_9_1 = {"request_id", "prompt_ids", "sampling_params", "image_data", "video_data", "audio_data"} | {
    "mm_processor_kwargs",
    "priority",
}
SAMPLING_0_9_1 = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

HAS_VERL = importlib.util.find_spec("verl") is not None and importlib.util.find_spec("ray") is not None
needs_verl = pytest.mark.skipif(not HAS_VERL, reason="verl is not installed: `make trainers` (checked against 0.9.1)")


def answer(finish: str = "stop") -> dict[str, Any]:
    meta = {"id": "r", "finish_reason": {"type": finish}, "weight_version": "math-1a2b.3-17", "prompt_tokens": 3}
    logprobs = [[-0.5, 7, None], [-0.25, 8, None]]
    return {"text": "", "output_ids": [7, 8], "meta_info": meta | {"output_token_logprobs": logprobs}}


def parameters(method: Any) -> list[tuple[str, str]]:
    return [
        (parameter.name, parameter.kind.name) for parameter in list(inspect.signature(method).parameters.values())[1:]
    ]


def test_the_router_has_the_methods_and_parameters_of_verls_load_balancer() -> None:
    for name, expected in LOAD_BALANCER_0_9_1.items():
        assert parameters(getattr(Router, name)) == expected, name
    assert parameters(Router.__init__) == [(name, "POSITIONAL_OR_KEYWORD") for name in ("servers", "config")]
    accepted = inspect.signature(Server().generate.remote).parameters
    assert set(accepted) >= GENERATE_0_9_1


def test_every_request_goes_to_the_fleet_and_is_counted() -> None:
    router = Router({"10.0.0.1:8000": object()}, {"router_class": "openseer_client.verl.Router", "url": "http://api"})
    name, server = router.acquire_server("a", prompt_ids=[1])
    router.acquire_server(request_id="b")
    router.add_servers({"10.0.0.2:8000": object()})
    router.remove_servers(["10.0.0.1:8000"])
    assert router.get_all_servers() == [name] == ["openseer"]
    assert router.get_total_inflight() == 2
    router.release_server(name, request_id="a")
    assert router.get_status()["servers"] == {"openseer": 1}
    assert router.get_status()["unused"] == ["10.0.0.2:8000"]
    assert router.clear_sticky_cache()["cleared_entries"] == 0
    # Ray gives the server to another process.
    assert pickle.loads(pickle.dumps(server)) == Server(url="http://api")


def test_a_request_is_translated_to_the_route() -> None:
    call = generation([1, 2, 3], SAMPLING_0_9_1, "r1", 64)
    assert json.loads(call.body or b"") == {
        "rid": "r1",
        "input_ids": [1, 2, 3],
        "sampling_params": {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_new_tokens": 64},
        "return_logprob": True,
        "stream": False,
    }
    assert json.loads(generation([1], {"max_tokens": 5}, "r", 64).body or b"")["sampling_params"] == {
        "max_new_tokens": 5
    }
    with pytest.raises(InputError, match="repetition_penalty"):
        generation([1], {"repetition_penalty": 1.1}, "r", 64)


def test_the_global_step_is_read_from_the_version() -> None:
    assert steps_of("math-1a2b.3-17") == 17
    assert steps_of("initial") is None
    assert steps_of(None) is None


@pytest.mark.usefixtures("token_output")
@pytest.mark.filterwarnings("default")
async def test_a_response_is_returned_in_verls_form_after_an_outage() -> None:
    with generating([(503, {}), (200, answer()), (200, answer("abort"))]) as (url, seen):
        _, server = Router({}, {"url": url, "response_length": 32}).acquire_server("r")
        call = {"request_id": "r", "prompt_ids": [1, 2, 3], "sampling_params": SAMPLING_0_9_1}
        output = await server.generate.remote(**call, image_data=None, video_data=None)
        assert (output.token_ids, output.log_probs, output.stop_reason) == ([7, 8], [-0.5, -0.25], "completed")
        assert output.extra_fields == {"global_steps": 17}
        assert (await server.generate.remote(**call)).stop_reason == "aborted"
        with pytest.raises(InputError, match="token ids only"):
            await server.generate.remote(**call, image_data=[object()])
    assert [body["path"] for body in seen] == ["/generate"] * 3
    assert seen[0] == seen[1]


@needs_verl
@pytest.mark.filterwarnings("default")
def test_verls_own_protocol_is_the_recorded_one() -> None:
    from verl.workers.rollout.replica import TokenOutput  # noqa: PLC0415
    from verl.workers.rollout.router import RequestLoadBalancer  # noqa: PLC0415

    public = {name for name in vars(RequestLoadBalancer) if not name.startswith("_")}
    assert public == set(LOAD_BALANCER_0_9_1)
    for name, expected in LOAD_BALANCER_0_9_1.items():
        assert parameters(getattr(RequestLoadBalancer, name)) == expected, name
    assert {"token_ids", "log_probs", "stop_reason", "num_preempted", "extra_fields"} <= set(TokenOutput.model_fields)


@needs_verl
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_verl_loads_the_router_by_name_and_generates_through_it(tmp_path: Path) -> None:
    import asyncio  # noqa: PLC0415

    import ray  # noqa: PLC0415
    from omegaconf import OmegaConf  # noqa: PLC0415
    from verl.workers.rollout.llm_server import LLMServerClient  # noqa: PLC0415
    from verl.workers.rollout.router import get_router_handle  # noqa: PLC0415

    with generating([(200, answer())]) as (url, seen):
        config = tmp_path / "router.yaml"
        config.write_text(f"router_class: openseer_client.verl.Router\nurl: {url}\nresponse_length: 32\n")
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        try:
            router = get_router_handle({}, router_config_path=str(config))
            whole = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm", "full_determinism": True}}})
            client = LLMServerClient(whole, router)
            request = client.generate("r1", prompt_ids=[1, 2, 3], sampling_params=dict(SAMPLING_0_9_1))
            output = asyncio.run(request)
            assert ray.get(router.get_status.remote())["active_servers"] == 1
        finally:
            ray.shutdown()
    assert output.token_ids == [7, 8]
    assert output.extra_fields["max_global_steps"] == 17
    assert seen[0]["rid"] == "r1"


@needs_verl
@pytest.mark.filterwarnings("default")
def test_verl_finds_the_rollout_and_its_weights_are_published_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio  # noqa: PLC0415

    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415
    from verl.workers.config import RolloutConfig  # noqa: PLC0415
    from verl.workers.rollout.base import BaseRollout, get_rollout_class  # noqa: PLC0415
    from verl.workers.rollout.replica import RolloutReplica, get_rollout_replica_class  # noqa: PLC0415

    done = {"id": 1, "version": "v", "previous": "", "mode": "abort", "phase": "done", "attempt": 0, "started_at": 0.0}
    # As with VERL_USE_EXTERNAL_MODULES.
    importlib.import_module("openseer_client.verl_rollout")
    with generating([(202, done)]) as (url, seen):
        rollout_class: Any = get_rollout_class("openseer")
        replica_class: Any = get_rollout_replica_class("openseer")
        assert issubclass(rollout_class, BaseRollout)
        assert issubclass(replica_class, RolloutReplica)
        custom = {"weights_folder": str(tmp_path), "url": url, "run": "math"}
        config = RolloutConfig(name="openseer", custom=custom, tensor_model_parallel_size=1, response_length=9)
        rollout = rollout_class(config=config, model_config={}, device_mesh=None)
        tensors = {"a": torch.arange(3), "b": torch.ones(2, 2)}
        asyncio.run(
            rollout.update_weights(iter(tensors.items()), peft_config=None, base_sync_done=True, global_steps=4)
        )
        replica = replica_class(replica_rank=0, config=config, model_config={}, gpus_per_node=1)
        asyncio.run(replica.launch_servers())
        asyncio.run(replica.sleep())
    assert replica.server_handle == Server(url=url, response_length=9)
    path = Path(seen[0]["source"]["path"])
    assert steps_of(seen[0]["version"]) == 4
    assert path.parent == tmp_path
    assert set(load_file(path / "model.safetensors")) == {"a", "b"}
