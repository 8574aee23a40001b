"""Prompts of the tiny model without end, and sampled groups of its responses that lie in benchmarks/data.

    python benchmarks/tiny_rollouts.py        samples them anew, about two minutes

Each line of `rollouts.jsonl` is a group: its prompt and responses as text, a character a token, `$` for the end token.
"""

# The tiny model's own prompts are found at run time:
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false
import sys

# This folder last: its queue.py would stand in for the standard library's.
sys.path[:] = [entry for entry in sys.path if entry != __file__.rpartition("/")[0]] + [__file__.rpartition("/")[0]]

import argparse
import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openseer_core.manifest.job import Model, Sampling
from openseer_core.tokens import unpack_tokens
from openseer_worker.engine import EngineRequest
from openseer_worker.vllm.engine import VllmEngine

TINY = Path(__file__).resolve().parent.parent / "examples/tiny-model"
MODEL = TINY / "model"
SAMPLED = Path(__file__).resolve().parent / "data/rollouts.jsonl"
MOST_TOKENS = 3072
_SEED = 6
_SLOTS = 64
_END = "$"
Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class SampledGroup:
    """A prompt and the responses to it, all as token ids."""

    prompt: Tokens
    responses: list[Tokens]


def prompts(count: int, seed: int) -> list[tuple[str, list[int]]]:
    """So many different held-out prompts of the tiny model, short and long ones mixed: their text and token ids."""
    sys.path.append(str(TINY))
    from prompt_mix import held_out_problems  # noqa: PLC0415 - lies among the examples

    return [(problem.prompt, _rendered(problem.prompt)) for problem in held_out_problems(count, seed)]


def sampled_groups() -> list[SampledGroup]:
    """The groups that lie in benchmarks/data, sampled at temperature 1."""
    ids = _vocabulary()
    lines = [json.loads(line) for line in SAMPLED.read_text().splitlines()]
    return [
        SampledGroup(
            np.array(_rendered(line["prompt"]), np.int32),
            [np.array([ids[letter] for letter in text], np.int32) for text in line["responses"]],
        )
        for line in lines
    ]


def _rendered(prompt: str) -> list[int]:
    """As the model's chat template does."""
    ids = _vocabulary()
    return [ids["<bos>"], ids["<user>"], *(ids[letter] for letter in prompt), ids["<assistant>"]]


def _vocabulary() -> dict[str, int]:
    vocabulary: dict[str, int] = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
    return vocabulary | {_END: vocabulary["<eos>"]}


async def sample(groups: int, size: int) -> list[dict[str, str | list[str]]]:
    """New groups, from one engine."""
    drawn = prompts(groups, _SEED)
    letters = {number: letter for letter, number in _vocabulary().items()}
    model = Model.model_validate({"path": str(MODEL), "engineArgs": {"max_num_seqs": _SLOTS}})
    engine = VllmEngine(model, cache_salt="benchmark")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine.start(lambda: (loop.call_soon_threadsafe(ended.set), None)[1])
    sampling = Sampling(temperature=1.0, max_tokens=MOST_TOKENS)
    texts = {f"{group}-{index}": "" for group in range(groups) for index in range(size)}
    for key in texts:
        group, index = map(int, key.split("-"))
        engine.add(EngineRequest(key, str(group), index, drawn[group][1], [], MOST_TOKENS, sampling))
    missing = len(texts)
    while missing:
        await ended.wait()
        ended.clear()
        for progress in engine.collect():
            texts[progress.key] += "".join(letters[token] for token in unpack_tokens(progress.tokens))
            missing -= progress.finish is not None
    await engine.close()
    return [
        {"prompt": text, "responses": [texts[f"{group}-{index}"] for index in range(size)]}
        for group, (text, _) in enumerate(drawn)
    ]


def main() -> None:
    """Samples and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=24)
    parser.add_argument("--size", type=int, default=16, help="responses of a group")
    options = parser.parse_args()
    lines = asyncio.run(sample(options.groups, options.size))
    SAMPLED.parent.mkdir(exist_ok=True)
    SAMPLED.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{SAMPLED}: {len(lines)} groups, {sum(len(text) for line in lines for text in line['responses'])} tokens")


if __name__ == "__main__":
    main()
