"""The problems for the training of the tiny model: prompts as groups, and the reward of a response."""

import itertools
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from openseer_client import FinishedGroup, Group, ResultItem

TINY = Path(__file__).parents[1] / "tiny-model"
MODEL = TINY / "model"
sys.path.append(str(TINY))  # after this folder, because both contain a train.py
from traces import check, is_held_out

DIGITS = (4, 1)
"""Numbers of digits of the two factors. Before training, about 70 % of the model's answers are right."""


@cache
def tokenizer() -> Any:
    """Returns the model's tokenizer."""
    return AutoTokenizer.from_pretrained(MODEL)


def reward_of(item: ResultItem) -> float:
    """Returns 1 for a response that ends in the right answer, else 0. A RewardPool calls it in other processes."""
    return Problems.reward(str(item.metadata["prompt"]), tokenizer().decode(item.token_ids, skip_special_tokens=True))


class Problems:
    """Products to compute, such as `mul 4817*6`. One prompt in ten, by hash, is held out from training."""

    def __init__(self, seed: int, digits: tuple[int, int] = DIGITS) -> None:
        self._seed, self._digits = seed, digits
        self._tokenizer = tokenizer()

    def training(self) -> Iterator[Group]:
        """Yields groups without end, each with its own name."""
        for number, prompt in enumerate(_prompts(random.Random(self._seed), self._digits, held_out=False)):
            yield self._group(f"train-{number}", prompt)

    def held_out(self, count: int) -> list[Group]:
        """Returns groups with `count` different prompts, the same in each training."""
        prompts = dict.fromkeys(itertools.islice(_prompts(random.Random(0), self._digits, held_out=True), 20 * count))
        return [self._group(f"eval-{number}", prompt) for number, prompt in enumerate(itertools.islice(prompts, count))]

    def rewards(self, group: FinishedGroup) -> list[float]:
        """Returns for each response 1 if it ends in the right answer, else 0."""
        return [reward_of(item) for item in group.results]

    def prompts(self, count: int) -> list[str]:
        """Returns the first `count` prompts of the training as text."""
        return list(itertools.islice(_prompts(random.Random(self._seed), self._digits, held_out=False), count))

    @staticmethod
    def reward(prompt: str, response: str) -> float:
        """Returns 1 if the response ends in the right answer, else 0."""
        return float(check(prompt, response))

    def _group(self, name: str, prompt: str) -> Group:
        messages = [{"role": "user", "content": prompt}]
        ids = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        return Group(id=name, prompt_token_ids=ids, metadata={"prompt": prompt})


def _prompts(rng: random.Random, digits: tuple[int, int], *, held_out: bool) -> Iterator[str]:
    while True:
        left, right = (rng.randrange(10 ** (count - 1), 10**count) for count in digits)
        prompt = f"mul {left}*{right}"
        if is_held_out(prompt) == held_out:
            yield prompt
