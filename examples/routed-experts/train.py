"""GRPO on a tiny mixture of experts that replays the engine's experts; measures the mismatch with and without replay.

Each step samples with this trainer's weights and compares the engine's log-probabilities with those of two forward
passes: one through the engine's experts, one through the trainer's own. The optimizer step uses the former.
"""

import argparse
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from chart import draw
from torch import Tensor
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter
from transformers.utils.logging import disable_progress_bar

from openseer_client import BatchSpec, Client, FinishedGroup, Group, ResultItem, StaleResultError
from openseer_client.routing.arrays import routed_experts
from openseer_client.routing.forms import for_verl
from openseer_client.routing.replay import replayed
from openseer_client.torch_grpo import Figures, Sample, loss, samples
from openseer_client.torch_weights import WeightsFolder, publish

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "grpo"))  # after this folder, because both contain a train.py
from local_server import serving

TOKENIZER = HERE.parent / "tiny-model/model"
LAYERS, EXPERTS, CHOSEN = 3, 32, 4
PROMPT_TOKENS = 16


def make_model(folder: Path) -> Any:
    """Returns a random Qwen3 in float32 with experts in all layers, and saves it to `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.save_pretrained(folder)
    more: dict[str, Any] = {"head_dim": 32}  # missing in the type of Qwen3MoeConfig
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, moe_intermediate_size=32,
        num_hidden_layers=LAYERS, num_experts=EXPERTS, num_experts_per_tok=CHOSEN, norm_topk_prob=True,
        num_attention_heads=2, num_key_value_heads=1, **more, max_position_embeddings=256, initializer_range=0.2,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config)
    model.save_pretrained(folder)
    return model


def reward_of(item: ResultItem) -> float:
    """Returns the share of the response's tokens with an even id."""
    return sum(token % 2 == 0 for token in item.token_ids) / len(item.token_ids)


def experts_of(items: list[ResultItem]) -> tuple[Tensor, Tensor]:
    """Returns the engine's experts, int64 [samples, tokens, layers, experts], and a mask of the known ones, bool
    [samples, tokens].

    They are unknown for the last token and the padding, where the loss reads nothing. Raises ValueError for a response
    with gaps.
    """
    rows = [for_verl(routed_experts(item)) for item in items]
    length = max(len(row) for row in rows) + 1
    experts = np.tile(np.arange(CHOSEN), (len(rows), length, LAYERS, 1))
    known = np.zeros((len(rows), length), np.bool_)
    for number, row in enumerate(rows):
        experts[number, : len(row)] = row
        known[number, : len(row)] = True
    return torch.from_numpy(experts), torch.from_numpy(known)


def free_pass(model: Any, batch: list[Sample]) -> tuple[Figures, Tensor]:
    """Runs a forward pass without replay; returns its figures and its experts [tokens, layers, experts].

    The figures compare its log-probabilities with the engine's.
    """
    chosen: list[Tensor] = []

    def note(_router: Any, _input: Any, output: tuple[Tensor, ...]) -> None:
        chosen.append(output[2])

    routers = [module for module in model.modules() if isinstance(module, Qwen3MoeTopKRouter)]
    hooks = [router.register_forward_hook(note) for router in routers]
    try:
        with torch.no_grad():
            _, figures = loss(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return figures, torch.stack(chosen, 1)


class Training:
    """Trains a model on responses that the fleet of `client` samples."""

    def __init__(self, client: Client, model: Any, options: argparse.Namespace) -> None:
        self.client, self.model, self.options = client, model, options
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0)
        self.folder = WeightsFolder(options.out / "weights")
        self.random = np.random.default_rng(options.seed)
        self.run = f"moe-{uuid.uuid4().hex[:8]}"

    def train(self) -> list[dict[str, Any]]:
        """Takes all steps; returns a row of figures for each."""
        while not self.client.job().workers_ready:
            time.sleep(0.5)
        rows: list[dict[str, Any]] = []
        for step in range(self.options.steps):
            version = f"{self.run}-{step}"
            publish(self.client, self.folder, self.model, version)
            rows.append({"step": step} | self.learn(self.roll_out(version)))
            print(json.dumps(rows[-1]), flush=True)
        return rows

    def roll_out(self, version: str) -> list[FinishedGroup]:
        """Samples groups for random prompts. Raises StaleResultError for a token of other weights than `version`."""
        batch = self.client.open_batch(BatchSpec(weights_version=version, group_size=self.options.group_size))
        prompts = self.random.integers(4, 64, (self.options.groups, PROMPT_TOKENS)).tolist()
        batch.submit([Group(id=f"g{number}", prompt_token_ids=prompt) for number, prompt in enumerate(prompts)])
        batch.seal()
        groups = list(batch.groups(acknowledge=True))
        for item in (item for group in groups for item in group.results):
            if {span.version for span in item.versions} != {version}:
                raise StaleResultError(item, version)
        return groups

    def learn(self, groups: list[FinishedGroup]) -> dict[str, Any]:
        """Measures the mismatch with and without replay, and takes one step through the engine's experts."""
        items = [item for group in groups for item in group.results]
        rewards = {group.name: [reward_of(item) for item in group.results] for group in groups}
        batch = [sample for group in groups for sample in samples(group, rewards[group.name])]
        experts, known = experts_of(items)
        free, own = free_pass(self.model, batch)
        differ = (own.view_as(experts).sort(-1).values != experts.sort(-1).values).any(-1)[known]
        with replayed(self.model, list(experts.flatten(0, 1).transpose(0, 1))):
            value, through = loss(self.model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {
            "reward": float(np.mean([reward for found in rewards.values() for reward in found])),
            "tokens": through.tokens,
            "choices": differ.numel(),
            "choices_that_differ": int(differ.sum()),
            "free": {"mean": free.mean_difference, "max": free.difference},
            "replayed": {"mean": through.mean_difference, "max": through.difference},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/routed-experts"), help="for model, JSON and plot")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--engine-dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out = options.out.resolve()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    disable_progress_bar()
    model = make_model(options.out / "model")
    job = yaml.safe_load((HERE / "job.yaml").read_text())
    job["spec"]["model"] |= {"path": str(options.out / "model"), "dtype": options.engine_dtype}
    (options.out / "job.yaml").write_text(yaml.safe_dump(job))
    with (
        serving(options.out / "job.yaml", options.out / "serve") as (url, token_file),
        Client(url, token_file=token_file) as client,
    ):
        steps = Training(client, model, options).train()
    found = {"engine_dtype": options.engine_dtype, "seed": options.seed, "steps": steps}
    (options.out / "mismatch.json").write_text(json.dumps(found, indent=1) + "\n")
    print(draw(options.out))


if __name__ == "__main__":
    main()
