"""Any number of prompts of the tiny model, and the groups of its sampled responses in benchmarks/data.

Each line of `rollouts.jsonl` is a group: its prompt and responses as text with one character per token, `$` for the end
token. `benchmarks/support/sample_rollouts.py` samples them anew.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BENCHMARKS = Path(__file__).resolve().parent.parent
TINY = BENCHMARKS.parent / "examples/tiny-model"
MODEL = TINY / "model"
SAMPLED = BENCHMARKS / "data/rollouts.jsonl"
_END = "$"
Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class SampledGroup:
    """A prompt and the responses to it, all as token ids."""

    prompt: Tokens
    responses: list[Tokens]


def prompts(count: int, seed: int) -> list[tuple[str, list[int]]]:
    """`count` different held-out prompts of the tiny model, short and long ones mixed, as text and token ids."""
    sys.path.append(str(TINY))  # an example is a folder of scripts, no package
    from prompt_mix import held_out_problems  # noqa: PLC0415 - lies among the examples

    return [(problem.prompt, _rendered(problem.prompt)) for problem in held_out_problems(count, seed)]


def sampled_groups() -> list[SampledGroup]:
    """The groups in benchmarks/data, sampled at temperature 1."""
    ids = vocabulary()
    lines = [json.loads(line) for line in SAMPLED.read_text().splitlines()]
    return [
        SampledGroup(
            np.array(_rendered(line["prompt"]), np.int32),
            [np.array([ids[letter] for letter in text], np.int32) for text in line["responses"]],
        )
        for line in lines
    ]


def _rendered(prompt: str) -> list[int]:
    """Renders a prompt as the model's chat template does."""
    ids = vocabulary()
    return [ids["<bos>"], ids["<user>"], *(ids[letter] for letter in prompt), ids["<assistant>"]]


def vocabulary() -> dict[str, int]:
    """The token id of each character; `$` is the end token."""
    ids: dict[str, int] = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
    return ids | {_END: ids["<eos>"]}
