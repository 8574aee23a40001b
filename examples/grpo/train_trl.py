"""The same training with TRL's own GRPOTrainer: openseer takes the place of its generation, nothing else changes."""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL calls its rollout functions experimental

import torch
from datasets import Dataset
from local_server import serving
from problems import MODEL, Problems
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from openseer_client import Client
from openseer_client.torch_weights import WeightsFolder
from openseer_client.trl import Rollout

HERE = Path(__file__).parent


def right(prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
    """A reward function as TRL calls it: 1 for the right answer, else 0."""
    pairs = zip(prompts, completions, strict=True)
    return [Problems.reward(prompt[0]["content"], completion[0]["content"]) for prompt, completion in pairs]


def train(client: Client, options: argparse.Namespace) -> None:
    """So many of TRL's steps, each on `groups` prompts with `group_size` responses."""
    prompts = Problems(options.seed).prompts(options.steps * options.groups)
    config = GRPOConfig(
        output_dir=str(options.out / "trl"),
        max_steps=options.steps,
        per_device_train_batch_size=options.groups * options.group_size,
        num_generations=options.group_size,
        max_completion_length=options.max_tokens,
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=options.seed,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32),
        reward_funcs=right,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": prompt}] for prompt in prompts]}),
        processing_class=AutoTokenizer.from_pretrained(MODEL),
        rollout_func=Rollout(client, WeightsFolder(options.weights or options.out / "weights"), run="grpo-trl"),
    )
    trainer.train()


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="address of the API; unset: it is started here, as in train.py")
    parser.add_argument("--job", type=Path, default=HERE / "job.yaml", help="what is served, without --url")
    parser.add_argument("--weights", type=Path, help="folder that trainer and workers see under this same path")
    parser.add_argument("--out", type=Path, default=Path("runs/grpo-trl"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    torch.set_num_threads(1)
    here = serving(options.job, options.out / "serve") if options.url is None else nullcontext((options.url, None))
    with here as (url, token_file), Client(url, token_file=token_file) as client:
        train(client, options)


if __name__ == "__main__":
    main()
