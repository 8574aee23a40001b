"""TRL's own GRPOTrainer trains with the rollout function: it publishes weights, reads groups, and rewards rise."""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from openseer_client import BatchSpec, Group, GroupsLostError, ResultItem, StaleResultError
from openseer_client.torch_weights import WeightsFolder
from openseer_client.trl import Rollout, sampling_of
from openseer_core.errors import InputError
from tests.client.remote import Remote, RemoteBatch, end, result
from tests.repository import ROOT

MODEL = ROOT / "examples/tiny-model/model"
# TRL and its dependencies emit warnings about their own code.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Fleet(Remote):
    """Samples submitted groups with the latest published weights, read from their folder."""

    def __init__(self) -> None:
        super().__init__()
        self.on_upload = self.generate
        self.versions: list[str] = []
        self.adapters: list[Any] = []
        self.model: Any = None
        self.lose = 0
        self.lie = ""

    def handle(self, request: Any) -> Any:
        if request.method == "POST" and request.url.path.endswith("/v1/weights"):
            said = json.loads(request.content)
            self.versions.append(said["version"])
            self.adapters.append(said.get("adapter"))
            self.model = _loaded(said["source"]["path"], said.get("adapter"))
            done = {"id": len(self.versions), "version": said["version"], "previous": "", "mode": "drain"}
            more = {"phase": "done", "attempt": 0, "started_at": 0.0}
            self.answers["POST weights"] = deque([done | more])
        return super().handle(request)

    def generate(self, batch: RemoteBatch, new: list[Group]) -> None:
        assert batch.spec.weights_version == self.versions[-1]
        for group in new:
            for index in range(group.n or 1):
                batch.add(self._respond(batch, group, index))
            lost, self.lose = min(self.lose, 1), max(0, self.lose - 1)
            batch.add(end(group.id, group.n or 1, aborted=lost))

    def _respond(self, batch: RemoteBatch, group: Group, index: int) -> Any:
        sampling = batch.spec.sampling
        assert sampling is not None
        assert group.prompt_token_ids is not None
        ids = torch.tensor([group.prompt_token_ids])
        with torch.no_grad():
            for _ in range(sampling.max_tokens):
                logits = self.model(input_ids=ids).logits[:, -1].float() / sampling.temperature
                drawn = torch.multinomial(logits.softmax(-1), 1)
                ids = torch.cat([ids, drawn], dim=1)
                if int(drawn) == self.model.config.eos_token_id:
                    break
        response = ids[0, len(group.prompt_token_ids) :].tolist()
        version = self.lie or self.versions[-1]
        item = result(group.id, index).model_copy(
            update={"prompt_token_ids": group.prompt_token_ids, "token_ids": response, "weights_version": version}
        )
        return item.model_copy(update={"logprobs": [-1.0] * len(response), "sampled": [(0, len(response))]})


def _loaded(path: str, adapter: Any) -> Any:
    if not adapter:
        return AutoModelForCausalLM.from_pretrained(path).float().eval()
    from peft import PeftModel  # noqa: PLC0415 - seconds

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(MODEL).float(), path).eval()


@dataclass
class Training:
    """A trainer with its fleet, its weights folder and the rewards so far."""

    trainer: Any
    fleet: Fleet
    folder: WeightsFolder
    rewards: list[float]


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    return _training(tmp_path, AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32))


@pytest.fixture
def adapter_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """Trains a LoRA adapter; its rollout function has no name for it yet."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - seconds

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return _training(tmp_path, get_peft_model(base, config))


def _training(tmp_path: Path, model: Any) -> Training:
    # Fifteen seconds of imports, with warnings.
    from datasets import Dataset  # noqa: PLC0415
    from trl.trainer.grpo_config import GRPOConfig  # noqa: PLC0415
    from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: PLC0415

    # Threads that wait for one another cost more time than they save on a busy machine.
    torch.set_num_threads(1)
    fleet, rewards = Fleet(), list[float]()
    folder = WeightsFolder(tmp_path / "weights", keep=2)

    def varied(completions: list[str], **_: Any) -> list[float | None]:
        found = [len(set(text)) / 8 for text in completions]
        rewards.extend(found)
        return list[float | None](found)

    config = GRPOConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        max_steps=3,
        temperature=1.5,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        bf16=False,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=varied,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["1+1=", "2+3=", "7-4=", "5+5="]}),
        processing_class=AutoTokenizer.from_pretrained(MODEL),
        rollout_func=Rollout(fleet.client(), folder, run="math"),
    )
    return Training(trainer, fleet, folder, rewards)


def test_trls_trainer_steps_on_samples_of_its_latest_weights(training: Training) -> None:
    before = [value.clone() for value in training.trainer.model.parameters()]
    # A file that an earlier process of the same training left behind.
    training.fleet.client().open_batch(BatchSpec(metadata={"run": "math"}))
    training.trainer.train()
    assert [name.rsplit("-", 1)[1] for name in training.fleet.versions] == ["0", "1", "2"]
    assert len(training.rewards) == 3 * 8
    assert any(not torch.equal(old, new) for old, new in zip(before, training.trainer.model.parameters(), strict=True))
    batches = training.fleet.batches.values()
    assert [sorted(group.n or 0 for group in batch.groups.values()) for batch in batches] == [[4, 4]] * 3
    assert all(batch.spec.metadata == {"run": "math"} for batch in batches)
    # The latest versions are kept for workers that start later.
    assert len(list(training.folder.path.iterdir())) == 2


def test_an_incomplete_group_is_sampled_again_once_then_the_step_fails(training: Training) -> None:
    training.fleet.lose = 1
    training.trainer.args.max_steps = 1
    training.trainer.train()
    sizes = [len(batch.groups) for batch in training.fleet.batches.values()]
    assert sizes == [2, 1]
    training.fleet.lose = 100
    training.trainer.model.train()
    with pytest.raises(GroupsLostError, match="p0: 3 of 4 whole, 1 aborted"):
        training.trainer.rollout_func(["1+1="] * 4, training.trainer)


def test_turns_of_an_environment_are_masked(training: Training) -> None:
    def tool(item: ResultItem) -> list[int] | None:
        return [5, 6] if item.turn == 0 and item.index == 0 else None

    rollout = training.trainer.rollout_func
    training.trainer.rollout_func = Rollout(rollout.client, rollout.folder, environment=tool)
    training.trainer.args.max_steps = 1
    training.trainer.train()
    assert [turn for _, _, turn in training.fleet.continued] == [0, 0]
    assert training.fleet.batches[1].sealed
    answer = training.trainer.rollout_func(["1+1="] * 4, training.trainer)
    assert [len(mask) for mask in answer["env_mask"]] == [len(ids) for ids in answer["completion_ids"]]


def test_a_response_of_other_weights_stops_the_training(training: Training) -> None:
    training.fleet.lie = "older"
    with pytest.raises(StaleResultError, match="found older"):
        training.trainer.train()


def test_only_the_adapter_is_published_and_sampled_from(adapter_training: Training) -> None:
    trainer, fleet, folder = adapter_training.trainer, adapter_training.fleet, adapter_training.folder
    trainer.rollout_func = Rollout(fleet.client(), folder, adapter="math")
    trainer.train()
    trainer.rollout_func(["1+1="] * 4, trainer)  # publishes the weights of the last step
    assert [adapter["name"] for adapter in fleet.adapters] == ["math"] * 4
    saved = [{file.name for file in path.iterdir()} for path in folder.path.iterdir()]
    assert len(saved) == 2
    assert all({"adapter_config.json", "adapter_model.safetensors"} <= names for names in saved)
    assert not any(name.startswith("model") for names in saved for name in names)
    with torch.no_grad():
        ids = torch.tensor([[5, 6, 7]])
        ours, theirs = (model.eval()(input_ids=ids).logits for model in (trainer.model, fleet.model))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_adapter_without_a_name_is_refused_before_it_is_sampled_from(adapter_training: Training) -> None:
    with pytest.raises(InputError, match="adapter: missing, and the model has a LoRA adapter"):
        adapter_training.trainer.train()
    assert adapter_training.fleet.versions == []


def test_unsupported_sampling_settings_are_refused_before_the_start(training: Training) -> None:
    training.trainer.args.repetition_penalty = 1.2
    with pytest.raises(InputError, match="repetition_penalty"):
        sampling_of(training.trainer.args)
