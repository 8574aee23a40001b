"""GRPO in plain torch on the tiny model: openseer samples, this file computes rewards and trains. Copy and adapt it.

Each iteration publishes the weights to the whole fleet, samples groups until enough of them have right and wrong
responses, checks that every token was sampled from these weights, and takes one optimizer step.
"""

import argparse
import os
import time
import uuid
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from local_server import serving
from measures import Log, Phases, share_interval
from plot import draw
from problems import MODEL, Problems
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from openseer_client import BatchHandle, BatchSpec, Client, FinishedGroup, Sampling, StaleResultError, Target
from openseer_client.torch_grpo import loss, samples
from openseer_client.torch_weights import WeightsFolder, publish

HERE = Path(__file__).parent


class Training:
    """Trains a model on responses that the fleet of `client` samples with the model's weights."""

    def __init__(self, client: Client, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.client, self.options = client, options
        self.problems = Problems(options.seed)
        self.supply = self.problems.training()
        self.held_out = self.problems.held_out(options.eval_prompts)
        self.model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.lr, betas=(0.9, 0.95), weight_decay=0)
        self.folder = WeightsFolder(options.weights or options.out / "weights")
        self.sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens)
        # The weights of a version never change, so each training has its own names of versions.
        self.run = f"grpo-{uuid.uuid4().hex[:8]}"
        self.phases, self.log = Phases(), Log(options.out / "metrics.jsonl")

    def wait(self) -> None:
        """Waits until a worker is ready."""
        while not self.client.job().workers_ready:
            time.sleep(0.5)

    def train(self) -> None:
        """Takes `iterations` steps. Evaluates every `eval_every` iterations, and after the last step."""
        self.wait()
        last = self.options.iterations
        for iteration in range(last + 1):
            version = f"{self.run}-{iteration}"
            row: dict[str, Any] = {"iteration": iteration, "version": version}
            with self.phases("publish"):
                row |= self.publish(version)
            if iteration % self.options.eval_every == 0 or iteration == last:
                with self.phases("eval"):
                    row |= self.evaluate(version)
            if iteration < last:
                with self.phases("rollout"):
                    groups, metrics = self.roll_out(version)
                with self.phases("train"):
                    row |= metrics | self.learn(groups)
            self.note(row)

    def note(self, row: dict[str, Any]) -> None:
        """Writes the figures of an iteration to metrics.jsonl and to standard output."""
        row |= {"seconds": self.phases.take(), "load_average": os.getloadavg()[0]}
        self.log.write(row)
        print(_line(row), flush=True)

    def publish(self, version: str, **how: Any) -> dict[str, Any]:
        """Publishes the weights to the whole fleet and returns its time and the largest canary difference.

        The canary compares each worker's log-probabilities with this model's. Raises RuntimeError if a worker serves
        other weights afterwards.
        """
        done = publish(self.client, self.folder, self.model, version, **how)
        others = [worker.name for worker in self.client.workers() if worker.version != version]
        if others:
            raise RuntimeError(f"published {version}, and these workers serve other weights: {', '.join(others)}")
        differences = [worker.canary_difference or 0.0 for worker in done.workers]
        return {"canary_difference": max(differences), "publish_seconds": done.seconds}

    def roll_out(self, version: str) -> tuple[list[FinishedGroup], dict[str, float]]:
        """Samples groups with right and wrong responses; returns them and the batch's metrics.

        Submits `spare_groups` more than an iteration needs, and further groups if these do not suffice.
        """
        target = Target(groups=self.options.groups, count="valid")
        spec = BatchSpec(
            weights_version=version, sampling=self.sampling, group_size=self.options.group_size, target=target
        )
        batch = self.client.open_batch(spec)
        batch.submit(islice(self.supply, self.options.groups + self.options.spare_groups))
        groups, metrics = self.gather(batch)
        self.prove(groups, version)
        return groups, metrics

    def gather(self, batch: BatchHandle) -> tuple[list[FinishedGroup], dict[str, float]]:
        """Returns as many groups with right and wrong responses as an iteration needs, and the batch's metrics."""
        rewards: list[float] = []

        def is_valid(group: FinishedGroup) -> bool:
            found = self.rewards(group)
            rewards.extend(found)
            return len(set(found)) > 1

        groups = list(batch.fill(self.supply, is_valid))
        metrics = batch.metrics()
        batch.acknowledge(batch.status().last_cursor)
        return groups, metrics | {"reward": sum(rewards) / len(rewards)}

    def rewards(self, group: FinishedGroup) -> list[float]:
        """Returns the reward of each response of a finished group."""
        with self.phases("reward"):
            return self.problems.rewards(group)

    def prove(self, groups: Iterable[FinishedGroup], version: str) -> None:
        """Raises StaleResultError if a token was sampled from another version than `version`."""
        for item in (item for group in groups for item in group.results):
            if {span.version for span in item.versions} != {version}:
                raise StaleResultError(item, version)

    def learn(self, groups: list[FinishedGroup]) -> dict[str, float]:
        """Takes one step on all groups. Returns figures, such as the differences of the fleet's log-probabilities from
        this model's."""
        batch = [sample for group in groups for sample in samples(group, self.problems.rewards(group))]
        batch.sort(key=lambda sample: len(sample.prompt) + len(sample.response))
        tokens = sum(sum(sample.mask) for sample in batch)
        worst = total = 0.0
        for start in range(0, len(batch), self.options.micro_batch):
            part = batch[start : start + self.options.micro_batch]
            value, measured = loss(self.model, part, temperature=self.options.temperature)
            (value * (measured.tokens / tokens)).backward()
            worst = max(worst, measured.difference)
            total += measured.mean_difference * measured.tokens
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {
            "tokens": tokens,
            "gradient_norm": float(norm),
            "logprob_difference_max": worst,
            "logprob_difference_mean": total / tokens,
        }

    def evaluate(self, version: str) -> dict[str, Any]:
        """Returns the share of right answers to held-out prompts. One response each, so that trials are independent."""
        spec = BatchSpec(weights_version=version, purpose="eval", sampling=self.sampling, group_size=1)
        batch = self.client.open_batch(spec)
        batch.submit(self.held_out)
        batch.seal()
        groups = list(batch.groups(acknowledge=True))
        self.prove(groups, version)
        with self.phases("reward"):
            right = sum(sum(self.problems.rewards(group)) for group in groups)
        low, high = share_interval(right, len(groups))
        return {"held_out": right / len(groups), "held_out_interval": [low, high], "held_out_prompts": len(groups)}


def _line(row: dict[str, Any]) -> str:
    seconds = " ".join(f"{name} {value:.1f}" for name, value in row["seconds"].items())
    parts = [f"{row['iteration']:4}"]
    if "reward" in row:
        parts.append(f"reward {row['reward']:.3f}  log-probabilities within {row['logprob_difference_max']:.1e}")
    if "held_out" in row:
        low, high = row["held_out_interval"]
        parts.append(f"held out {row['held_out']:.3f} ({low:.3f}-{high:.3f})")
    return "  ".join([*parts, f"[s: {seconds}]"])


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_argument_group("the API, otherwise started here (`openseer serve`) and ended with the training")
    where.add_argument("--url", help="its address; OPENSEER_TOKEN or OPENSEER_TOKEN_FILE hold the token")
    parser.add_argument("--job", type=Path, default=HERE / "job.yaml", help="what is served, without --url")
    parser.add_argument("--weights", type=Path, help="folder that trainer and workers see under this same path")
    parser.add_argument("--out", type=Path, default=Path("runs/grpo"), help="folder for metrics.jsonl and plot.png")
    parser.add_argument("--iterations", type=int, default=24)
    parser.add_argument("--groups", type=int, default=8, help="groups with right and wrong responses per iteration")
    parser.add_argument("--spare-groups", type=int, default=8, help="so many more are asked for at once")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--micro-batch", type=int, default=32, help="responses in one forward pass")
    parser.add_argument("--temperature", type=float, default=1.0, help="of training and of evaluation")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--eval-every", type=int, default=4)
    parser.add_argument("--eval-prompts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def run(training: type[Training], options: argparse.Namespace) -> None:
    """Trains, with its own server if the options have no address, and draws the metrics."""
    torch.set_num_threads(1)
    disable_progress_bar()
    here = serving(options.job, options.out / "serve") if options.url is None else nullcontext((options.url, None))
    # Without a token file the client reads OPENSEER_TOKEN or OPENSEER_TOKEN_FILE.
    with here as (url, token_file), Client(url, token_file=token_file) as client:
        training(client, options).train()
    print(draw(options.out))


if __name__ == "__main__":
    run(Training, parser_of(__doc__).parse_args())
