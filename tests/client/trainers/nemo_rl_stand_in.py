"""The parts of NeMo-RL that the adapter uses, as read at revision 7ea279a (0.6.0, 2026-08-22): names, fields, dtypes,
calls.

NeMo-RL is on no package index. These modules have its names and signatures only: the generation interface
(models/generation/interfaces.py), the synchronizer's (weight_sync/interfaces.py), BatchedDataDict as a mapping, and of
algorithms/grpo.py the order in which `setup` and `refit_policy_generation` call a colocated vLLM backend.
"""

import sys
from abc import ABC, abstractmethod
from collections import UserDict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.worker.weights.made import write_weights

ABSTRACT = {
    "init_collective": ["ip", "port", "world_size", "train_world_size"],
    "generate": ["data", "greedy"],
    "prepare_for_generation": ["args", "kwargs"],
    "finish_generation": ["args", "kwargs"],
    "shutdown": [],
}
"""Method → parameters after self."""
HOOKS = {
    "prepare_refit_info": ["state_dict_info"],
    "update_weights_via_ipc_zmq": [],
    "update_weights_from_collective": [],
    "invalidate_kv_cache": [],
}
"""Of those with a default, the ones that the default refuses or answers with False."""
OUTPUT = {
    "output_ids": (torch.int64, 2),
    "logprobs": (torch.float32, 2),
    "generation_lengths": (torch.int64, 1),
    "unpadded_sequence_lengths": (torch.int64, 1),
    "truncated": (torch.bool, 1),
}
"""Fields of GenerationOutputSpec: dtype and number of dimensions."""


class BatchedDataDict(UserDict[str, Any]):
    """A mapping from names to tensors and lists with equal numbers of rows."""


def verify_right_padding(data: Any, pad_value: int = 0, raise_error: bool = True) -> tuple[bool, str | None]:
    """Raises ValueError if tokens other than padding follow a row's length."""
    for row, length in zip(data["input_ids"].tolist(), data["input_lengths"].tolist(), strict=True):
        if any(token != pad_value for token in row[length:]):
            raise ValueError("Non-padding values found after specified length")
    return True, None


class GenerationInterface(ABC):
    """The base of every backend."""

    @abstractmethod
    def init_collective(self, ip: str, port: int, world_size: int, *, train_world_size: int) -> list[Any]: ...

    @abstractmethod
    def generate(self, data: Any, greedy: bool) -> Any: ...

    @abstractmethod
    def prepare_for_generation(self, *args: Any, **kwargs: Any) -> bool: ...

    @abstractmethod
    def finish_generation(self, *args: Any, **kwargs: Any) -> bool: ...

    @abstractmethod
    def shutdown(self) -> bool: ...

    @property
    def requires_kv_scale_sync(self) -> bool:
        return False

    def get_logger_metrics(self) -> dict[str, Any]:
        return {}

    def clear_logger_metrics(self) -> None:
        return None

    def blocks_training(self) -> bool:
        return False


class WeightSynchronizer(ABC):
    """The base of every transport."""

    @abstractmethod
    def sync_weights(self, *, timer: Any = None, kv_scales: Any = None) -> dict[str, float] | None: ...

    @property
    @abstractmethod
    def is_stale(self) -> bool: ...

    @abstractmethod
    def init_communicator(self) -> None: ...

    @abstractmethod
    def shutdown(self) -> None: ...


class Policy:
    """A policy whose DTensor workers (v2) save shards and, beside them, files for other programs (Automodel's layout,
    24b47e8)."""

    def __init__(self, *, consolidates: bool = True) -> None:
        self.content = "first"
        self.consolidates = consolidates
        self.calls: list[str] = []

    def save_checkpoint(
        self,
        weights_path: str,
        optimizer_path: str | None = None,
        tokenizer_path: str | None = None,
        checkpointing_cfg: dict[str, Any] | None = None,
    ) -> None:
        assert checkpointing_cfg is not None
        assert checkpointing_cfg["model_save_format"] == "safetensors"
        self.calls.append("save_checkpoint")
        model = Path(weights_path) / "model"
        (model / ".hf_metadata").mkdir(parents=True)
        (model / "shard-00001-model-00001-of-00001.safetensors").write_text("a part")
        if checkpointing_cfg.get("save_consolidated") and self.consolidates:
            write_weights(model / "consolidated", self.content)
            (model / "consolidated/config.json").write_text("{}")

    def prepare_refit_info(self) -> dict[str, Any]:
        return {"w": ((4,), torch.float32)}

    def offload_after_refit(self) -> None:
        self.calls.append("offload_after_refit")


class Config:
    """The `policy` part of a MasterConfig: that of examples/configs/grpo_math_1B.yaml, shortened."""

    def __init__(self) -> None:
        self.policy: dict[str, Any] = {
            "generation": {
                "backend": "vllm",
                "max_new_tokens": 40,
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": None,
                "stop_token_ids": [2],
                "stop_strings": None,
                "_pad_token_id": 0,
                "colocated": {"enabled": True},
                "vllm_cfg": {"async_engine": False, "max_model_len": 512, "tensor_parallel_size": 1},
            },
            "dtensor_cfg": {"enabled": True, "_v2": True, "lora_cfg": {"enabled": False}},
        }


def setup(master_config: Config, tokenizer: Any, dataset: Any, val_dataset: Any) -> tuple[Any, ...]:
    """Creates the generation, then the policy; the other returned values are None."""
    grpo: Any = sys.modules["nemo_rl.algorithms.grpo"]
    generation = grpo.VllmGeneration(cluster=None, config=master_config.policy["generation"])
    generation.finish_generation()
    policy = Policy()
    if generation.weight_synchronizer is None:
        generation.prepare_refit_info(policy.prepare_refit_info())
    return policy, generation, None, (None, None), None, None


def refit_policy_generation(policy: Any, policy_generation: Any, timer: Any = None) -> dict[str, float]:
    """Uses the backend's synchronizer if there is one."""
    return policy_generation.weight_synchronizer.sync_weights(timer=timer, kv_scales=None) or {}


def batch(prompts: list[list[int]], **fields: Any) -> BatchedDataDict:
    """GenerationDatumSpec as rollouts.py makes it: int64, padded right."""
    width = max((len(prompt) for prompt in prompts), default=0)
    padded = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], dtype=torch.long)
    lengths = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long)
    known = {"input_ids": padded, "input_lengths": lengths, "stop_strings": [None] * len(prompts)}
    return BatchedDataDict(known | fields)


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def stand_in_modules() -> dict[str, ModuleType]:
    """Name → module, as `sys.modules` takes them."""
    packages = ("", ".distributed", ".models", ".models.generation", ".weight_sync", ".algorithms")
    found = {f"nemo_rl{name}": _module(f"nemo_rl{name}") for name in packages}
    found["nemo_rl.distributed.batched_data_dict"] = _module("batched_data_dict", BatchedDataDict=BatchedDataDict)
    found["nemo_rl.models.generation.interfaces"] = _module(
        "interfaces", GenerationInterface=GenerationInterface, verify_right_padding=verify_right_padding
    )
    found["nemo_rl.weight_sync.interfaces"] = _module("interfaces", WeightSynchronizer=WeightSynchronizer)
    found["nemo_rl.algorithms.grpo"] = _module("grpo", VllmGeneration=None, setup=setup)
    return found
