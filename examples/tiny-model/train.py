"""Trains the tiny model on random traces on one CPU core, for a given number of minutes; seeded and resumable.

The data are generated during the training: short traces first, longer ones later, packed into rows of equal length.
Muon trains the matrices, AdamW the rest; the learning rate is warmed up, constant, and falls linearly to 0 in the last
part of the time. The loss covers only the response, since the prompt's random digits cannot be predicted.
"""

from __future__ import annotations

import argparse
import copy
import random
import shutil
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from make_tokenizer import VOCABULARY, save
from torch import Tensor, nn
from traces import is_held_out, sample_problem, sample_trace
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

ROW_LENGTHS = (384, 1024, 3072)  # a trace uses the shortest row that it fits: attention costs grow with the row
# Probability of each task, until this fraction of the time. Traces differ in length, so the tasks' shares of the tokens
# differ from these. Addition takes longest to learn and Collatz least, so the last stage has more additions.
TASK_WEIGHTS = (
    (0.738, {"collatz": 0.22, "add": 0.26, "sort": 0.24, "mul": 0.28}),
    (1.0, {"collatz": 0.14, "add": 0.34, "sort": 0.22, "mul": 0.30}),
)
# Until this fraction of the time: limit of a trace's tokens, and the approximate tokens of a batch.
CURRICULUM = ((0.08, 384, 2048), (0.25, 1024, 3072), (1.0, 3072, 4096))
# Until this fraction of the time, addition traces may leave out sums. The model did not learn such sums, so they end.
SKIP_SUMS_UNTIL = 0.837
IGNORED = -100
SPECIAL_IDS: dict[str, Any] = {f"{name}_token_id": VOCABULARY[f"<{name}>"] for name in ("pad", "bos", "eos")}


@dataclass
class Options:
    """The options of the command line."""

    out: Path
    work: Path
    minutes: float
    seed: int
    learning_rate: float
    warmup_steps: int
    decay_from: float
    save_every: float
    sharpen: float


Row = tuple[list[int], list[int]]  # tokens, labels


def _place(example: Row, rows: list[Row], length: int) -> bool:
    """Appends the example to the first row that has room for it; returns whether there is one."""
    for tokens, labels in rows:
        if len(tokens) + len(example[0]) <= length:
            tokens.extend(example[0])
            labels.extend(example[1])
            return True
    return False


class Batches:
    """Endless packed batches; their content depends on the seed and on the progress of training."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.progress = 0.0
        self._open: dict[int, list[Row]] = {length: [] for length in ROW_LENGTHS}
        self._waiting: deque[Row] = deque()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            while len(self._waiting) < 32:
                self._waiting.append(self._example())
            example = self._waiting.popleft()
            length = next(row for row in ROW_LENGTHS if len(example[0]) <= row)
            if _place(example, self._open[length], length):
                continue
            if len(self._open[length]) == max(1, self._stage()[1] // length):
                yield self._tensors(length)
            self._open[length].append(example)

    def _stage(self) -> tuple[int, int]:
        return next((longest, batch) for until, longest, batch in CURRICULUM if self.progress <= until)

    def _example(self) -> Row:
        """Returns the tokens of a prompt and its trace, and the labels: IGNORED for the prompt."""
        longest, _ = self._stage()
        weights = next(weights for until, weights in TASK_WEIGHTS if self.progress <= until)
        while True:
            task = self.rng.choices(list(weights), list(weights.values()))[0]
            prompt = sample_problem(self.rng, task).prompt
            if is_held_out(prompt):
                continue
            head = [VOCABULARY[token] for token in ("<bos>", "<user>", *prompt, "<assistant>")]
            trace = sample_trace(self.rng, prompt, skip_sums=self.progress < SKIP_SUMS_UNTIL)
            body = [VOCABULARY[token] for token in (*trace, "<eos>")]
            if len(head) + len(body) <= longest:
                return head + body, [IGNORED] * len(head) + body

    def _tensors(self, length: int) -> tuple[Tensor, Tensor]:
        rows, self._open[length] = self._open[length], []
        # Fills the remaining room with waiting examples; the others keep their order.
        self._waiting = deque(example for example in self._waiting if not _place(example, rows, length))
        tokens = torch.full((len(rows), length), SPECIAL_IDS["pad_token_id"])
        labels = torch.full((len(rows), length), IGNORED)
        for index, (row, row_labels) in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            labels[index, : len(row)] = torch.tensor(row_labels)
        return tokens, labels


def new_model() -> LlamaForCausalLM:
    """Returns a random Llama with 3.2 M parameters."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        **SPECIAL_IDS,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Returns Muon for the layers' matrices, and AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def loss_of(model: LlamaForCausalLM, tokens: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean cross-entropy of the responses' tokens, with matrix products in bf16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits: Tensor = model(input_ids=tokens).logits
    return nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())


def export(model: LlamaForCausalLM, out: Path, sharpen: float) -> None:
    """Writes the model in Hugging Face format, in bf16, to a new folder, which then replaces `out`.

    Scales the last norm, and so the logits, by `sharpen`, since a short training leaves probability on wrong tokens.
    Sampling from the export at temperature 1 equals sampling from the trained model at temperature 1 / sharpen.
    """
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    config = copy.deepcopy(model.config)
    config.use_cache = True
    exported = LlamaForCausalLM(config)
    exported.load_state_dict(model.state_dict())
    exported.model.norm.weight.data.mul_(sharpen)
    exported.generation_config = GenerationConfig(**SPECIAL_IDS)
    exported.to(torch.bfloat16).save_pretrained(fresh)  # pyright: ignore[reportArgumentType]
    save(fresh)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def rate_at(progress: float, step: int, options: Options) -> float:
    """Returns the learning rate: linear warm-up by steps, then constant, then linearly to 0 by time."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    return options.learning_rate * min(1.0, (1.0 - progress) / (1.0 - options.decay_from))


class Trainer:
    """The model, its optimizers, its data and the progress of the training."""

    def __init__(self, options: Options) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.model = new_model()
        self.batches = Batches(options.seed)
        self.tuners = optimizers(self.model, options.learning_rate)
        self.step, self.seen, self.spent = 0, 0, 0.0
        self._checkpoint = options.work / "checkpoint.pt"

    def resume(self) -> None:
        """Loads the checkpoint in the work folder, if there is one."""
        if not self._checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self._checkpoint, weights_only=False)
        self.model.load_state_dict(state["model"])
        for tuner, tuner_state in zip(self.tuners, state["tuners"], strict=True):
            tuner.load_state_dict(tuner_state)
        self.step, self.seen, self.spent = state["step"], state["seen"], state["spent"]
        self.batches.rng.setstate(state["rng"])

    def save(self) -> None:
        """Writes the checkpoint, and exports the present model to the same folder."""
        state = {
            "model": self.model.state_dict(),
            "tuners": [tuner.state_dict() for tuner in self.tuners],
            "step": self.step,
            "seen": self.seen,
            "spent": self.spent,
            "rng": self.batches.rng.getstate(),
        }
        torch.save(state, self._checkpoint)
        export(self.model, self.options.work / "model", self.options.sharpen)

    def train_on(self, tokens: Tensor, labels: Tensor, progress: float) -> float:
        """Takes one step; returns the loss."""
        for tuner in self.tuners:
            tuner.param_groups[0]["lr"] = rate_at(progress, self.step, self.options)
        loss = loss_of(self.model, tokens, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for tuner in self.tuners:
            tuner.step()
            tuner.zero_grad()
        self.step, self.seen = self.step + 1, self.seen + tokens.numel()
        return loss.item()

    def run(self) -> None:
        """Trains until the time is over, then exports the model."""
        started = time.monotonic() - self.spent
        saved = shown = self.spent
        losses: list[float] = []
        for tokens, labels in self.batches:
            self.spent = time.monotonic() - started
            progress = self.spent / (60 * self.options.minutes)
            if progress >= 1.0:
                break
            self.batches.progress = progress
            losses.append(self.train_on(tokens, labels, progress))
            if self.spent - shown > 15:
                self.show(sum(losses) / len(losses))
                shown, losses = self.spent, []
            if self.spent - saved > self.options.save_every:
                saved = self.spent
                self.save()
        export(self.model, self.options.out, self.options.sharpen)

    def show(self, loss: float) -> None:
        """Prints one line of progress."""
        print(f"{self.spent:6.0f} s  step {self.step}  {self.seen / 1e6:.2f} M tokens  loss {loss:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--minutes", type=float, default=61.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--warmup-steps", type=int, default=60)
    parser.add_argument("--decay-from", type=float, default=0.5, help="fraction of the time after which the rate falls")
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds between checkpoints")
    parser.add_argument("--sharpen", type=float, default=1.2, help="factor on the exported logits")
    parser.add_argument("--threads", type=int, default=1)
    arguments = vars(parser.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    options = Options(**arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
