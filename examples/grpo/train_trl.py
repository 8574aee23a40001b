"""The training of train.py with TRL's own GRPOTrainer: openseer replaces only its generation.

With --lora it trains a LoRA adapter with PEFT and publishes only the adapter to the fleet.
"""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # without it, TRL warns that rollout functions are experimental

import torch
from datasets import Dataset
from local_server import serving
from measures import Log, share_interval
from peft import LoraConfig, get_peft_model
from plot import draw
from problems import MODEL, Problems
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from openseer_client import Client
from openseer_client.torch_weights import WeightsFolder
from openseer_client.trl import Rollout

HERE = Path(__file__).parent


def right(prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
    """A reward function for TRL: returns 1 for each right answer, else 0."""
    pairs = zip(prompts, completions, strict=True)
    return [Problems.reward(prompt[0]["content"], completion[0]["content"]) for prompt, completion in pairs]


class Figures(TrainerCallback):
    """Writes TRL's logs to metrics.jsonl, as train.py does: a line per step, with evaluations on held-out prompts."""

    def __init__(self, path: Path, prompts: int) -> None:
        self._log, self._prompts = Log(path), prompts
        self._row: dict[str, Any] = {}

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Called by TRL after a step, and then after an evaluation."""
        logs = more["logs"]
        if self._row.get("iteration") != state.global_step:
            self._write()
            self._row = {"iteration": state.global_step, "seconds": {}}
        if "eval_reward" in logs:
            share, count = logs["eval_reward"], self._prompts
            interval = share_interval(share * count, count)
            self._row |= {"held_out": share, "held_out_interval": interval, "held_out_prompts": count}
            self._row["seconds"]["eval"] = logs["eval_runtime"]
        elif "reward" in logs:
            self._row |= {"reward": logs["reward"], "gradient_norm": logs["grad_norm"]}
            self._row["groups_alike"] = logs["frac_reward_zero_std"]  # share of prompts with equal rewards
            self._row["seconds"]["train"] = logs["step_time"]

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Writes the last line. Called by TRL."""
        self._write()

    def _write(self) -> None:
        if self._row:
            self._log.write(self._row)
        self._row = {}


def model_of(options: argparse.Namespace) -> Any:
    """Returns the model to train: the whole model, or an adapter on it."""
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    if not options.lora:
        return model
    return get_peft_model(model, LoraConfig(r=options.lora, lora_alpha=2 * options.lora, target_modules="all-linear"))


def train(client: Client, options: argparse.Namespace) -> None:
    """Takes `steps` steps with TRL, each on `groups` prompts with `group_size` responses, and draws the metrics."""
    problems = Problems(options.seed)
    held_out = [str(group.metadata["prompt"]) for group in problems.held_out(options.eval_prompts)]
    config = GRPOConfig(
        output_dir=str(options.out / "trl"),
        max_steps=options.steps,
        per_device_train_batch_size=options.groups * options.group_size,
        num_generations=options.group_size,
        per_device_eval_batch_size=max(1, len(held_out)),
        num_generations_eval=1,
        eval_strategy="steps" if held_out else "no",
        eval_steps=options.eval_every,
        eval_on_start=bool(held_out),
        max_completion_length=options.max_tokens,
        learning_rate=options.lr or (1e-3 if options.lora else 1e-4),
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=options.seed,
    )
    folder = WeightsFolder(options.weights or options.out / "weights")
    trainer = GRPOTrainer(
        model=model_of(options),
        reward_funcs=right,
        args=config,
        train_dataset=_dataset(problems.prompts(options.steps * options.groups)),
        eval_dataset=_dataset(held_out) if held_out else None,
        processing_class=AutoTokenizer.from_pretrained(MODEL),
        rollout_func=Rollout(client, folder, run="grpo-trl", adapter="math" if options.lora else None),
        callbacks=[Figures(options.out / "metrics.jsonl", len(held_out))],
    )
    trainer.train()
    print(f"drawn: {draw(options.out)}")


def _dataset(prompts: list[str]) -> Dataset:
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": prompt}] for prompt in prompts]})


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="address of the API; unset: it is started here, as in train.py")
    parser.add_argument(
        "--job", type=Path, help="what is served, without --url; unset: job.yaml, with --lora lora.yaml"
    )
    parser.add_argument("--weights", type=Path, help="folder that trainer and workers see under this same path")
    parser.add_argument("--out", type=Path, default=Path("runs/grpo-trl"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train an adapter of this rank")
    parser.add_argument("--lr", type=float, help="unset: 1e-4, with --lora 1e-3")
    parser.add_argument("--eval-every", type=int, default=4, help="steps between looks at held-out prompts")
    parser.add_argument("--eval-prompts", type=int, default=0, help="held-out prompts, a response each; 0: none")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    torch.set_num_threads(1)
    job = options.job or HERE / ("lora.yaml" if options.lora else "job.yaml")
    here = serving(job, options.out / "serve") if options.url is None else nullcontext((options.url, None))
    with here as (url, token_file), Client(url, token_file=token_file) as client:
        train(client, options)


if __name__ == "__main__":
    main()
