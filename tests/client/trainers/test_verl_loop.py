"""verl's own agent loop, built as its trainer builds it, on a real fleet: openseer carries weights and responses."""

# verl, Ray and OmegaConf are no dependencies: they are Any here.
# pyright: reportMissingImports=false

import asyncio
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_client import Client
from tests.example_fleet import example_fleet
from tests.repository import ROOT

HAS_VERL = importlib.util.find_spec("verl") is not None and importlib.util.find_spec("ray") is not None
pytestmark = [
    pytest.mark.skipif(not HAS_VERL, reason="verl is not installed: `make trainers` (checked against 0.9.1)"),
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]

MODULE = "openseer_client.verl_rollout"
MODEL = ROOT / "examples/tiny-model/model"
QUESTIONS = ("mul 4817*6", "mul 1234*5")
GROUP = 4
PROMPT, RESPONSE = 32, 96
"""Tokens."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with example_fleet(tmp_path_factory.mktemp("fleet")) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        patch.setenv("VERL_USE_EXTERNAL_MODULES", MODULE)
        importlib.import_module(MODULE)  # as verl does with that variable, in each of its processes
        yield found


@pytest.fixture(scope="module")
def ray(fleet: dict[str, str]) -> Iterator[Any]:
    """Ray on this machine, without a GPU."""
    module = importlib.import_module("ray")
    module.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield module
    module.shutdown()


def configured(weights: Path, *more: str) -> Any:
    """verl's own configuration with the settings of docs/trainers.md."""
    hydra: Any = importlib.import_module("hydra")
    rollout = "actor_rollout_ref.rollout"
    overrides = [
        f"actor_rollout_ref.model.path={MODEL}",
        f"{rollout}.name=openseer",
        f"{rollout}.calculate_log_probs=True",
        f"+{rollout}.custom={{weights_folder: {weights}, run: math}}",
        f"{rollout}.prompt_length={PROMPT}",
        f"{rollout}.response_length={RESPONSE}",
        *(f"{rollout}.{setting}=1" for setting in ("tensor_model_parallel_size", "nnodes", "n_gpus_per_node")),
        f"{rollout}.agent.num_workers=1",
    ]
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", overrides=[*overrides, *more])


def prompts() -> Any:
    import numpy as np  # noqa: PLC0415
    from verl import DataProto  # noqa: PLC0415

    count = len(QUESTIONS) * GROUP
    raw = np.empty(count, dtype=object)
    raw[:] = [[{"role": "user", "content": question}] for question in QUESTIONS for _ in range(GROUP)]
    other = {name: np.array([value] * count, dtype=object) for name, value in {"data_source": "x"}.items()}
    truth = np.array([{"ground_truth": "1"}] * count, dtype=object)
    return DataProto.from_single_dict({"raw_prompt": raw, "reward_model": truth, **other})


def sampled(config: Any) -> Any:
    """One batch through verl's server manager and agent loop."""
    from verl.experimental.agent_loop import AgentLoopManager  # noqa: PLC0415
    from verl.workers.rollout.llm_server import LLMServerManager  # noqa: PLC0415

    servers = LLMServerManager.create(config=config)
    return AgentLoopManager.create(config, servers.get_client()).generate_sequences(prompts())


def check(output: Any, steps: int | None) -> None:
    """Asserts whole responses with the log-probabilities of the model with that step's weights."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    assert output.non_tensor_batch["max_global_steps"].tolist() == [steps] * len(QUESTIONS) * GROUP
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    batch = output.batch
    mask = batch["response_mask"].bool()
    assert mask.any(dim=1).all()
    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
        ).logits[:, PROMPT - 1 : -1]
    own = logits.log_softmax(-1).gather(-1, batch["responses"].unsqueeze(-1)).squeeze(-1)
    assert (own - batch["rollout_log_probs"])[mask].abs().max() < 1e-3


@pytest.mark.usefixtures("ray")
def test_a_batch_of_verls_agent_loop_is_sampled_without_any_gpu(tmp_path: Path) -> None:
    check(sampled(configured(tmp_path)), None)


@pytest.mark.usefixtures("ray")
def test_verls_agent_loop_samples_from_weights_that_its_rollout_published(tmp_path: Path) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from verl.workers.config import RolloutConfig  # noqa: PLC0415
    from verl.workers.rollout.base import get_rollout_class  # noqa: PLC0415

    config = RolloutConfig(name="openseer", custom={"weights_folder": str(tmp_path)}, tensor_model_parallel_size=1)
    rollout: Any = get_rollout_class("openseer", "async")(config=config, model_config={}, device_mesh=None)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    asyncio.run(rollout.update_weights(iter(model.state_dict().items()), base_sync_done=True, global_steps=7))
    check(sampled(configured(tmp_path)), 7)


@pytest.mark.usefixtures("ray")
def test_a_fleet_on_the_trainers_gpus_sleeps_while_verl_trains(tmp_path: Path, fleet: dict[str, str]) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from verl.workers.config import RolloutConfig  # noqa: PLC0415
    from verl.workers.rollout.base import get_rollout_class  # noqa: PLC0415
    from verl.workers.rollout.replica import get_rollout_replica_class  # noqa: PLC0415

    custom = {"weights_folder": str(tmp_path), "share_gpus": True}
    config = RolloutConfig(name="openseer", custom=custom, tensor_model_parallel_size=1)
    rollout: Any = get_rollout_class("openseer", "async")(config=config, model_config={}, device_mesh=None)
    replica: Any = get_rollout_replica_class("openseer")(0, config, {}, 1)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)

    async def step(client: Client) -> None:
        """One step in verl's order: the trainer has the GPUs, then weights, then the rest
        (verl/workers/engine_workers.py)."""
        await replica.sleep()
        assert (client.fleet().state, client.fleet().awake) == ("released", [])
        await rollout.resume(tags=["weights"])
        assert client.fleet().awake == ["weights"]
        await rollout.update_weights(iter(model.state_dict().items()), base_sync_done=True, global_steps=8)
        await rollout.resume(tags=["kv_cache"])
        assert client.fleet().state == "awake"

    with Client(fleet["OPENSEER_URL"], token_file=fleet["OPENSEER_TOKEN_FILE"]) as client:
        asyncio.run(step(client))
    check(sampled(configured(tmp_path)), 8)


@pytest.mark.usefixtures("ray")
def test_verls_agent_loop_goes_through_the_router_alone(tmp_path: Path, fleet: dict[str, str]) -> None:
    router = tmp_path / "router.yaml"
    lines = ["router_class: openseer_client.verl.Router", f"url: {fleet['OPENSEER_URL']}"]
    lines += [f"token_file: {fleet['OPENSEER_TOKEN_FILE']}", f"response_length: {RESPONSE}"]
    router.write_text("\n".join(lines) + "\n")
    output = sampled(configured(tmp_path, f"actor_rollout_ref.rollout.router_config_path={router}"))
    check(output, output.non_tensor_batch["max_global_steps"][0])


@pytest.mark.usefixtures("ray")
def test_weights_sent_through_a_rollouts_own_process_are_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl")
    with pytest.raises(Exception, match=r"checkpoint_engine\.backend: found nccl, needed: naive"):
        sampled(config)
