"""Samples held-out prompts in groups through vLLM at temperature 1 and reports accuracy and lengths.

Writes `results.json` (the numbers in the README) and `lengths.json` (the length of each sample).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

# Set before vLLM is imported: one thread, the engine in this process, no downloads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from make_tokenizer import chat_text
from prompt_mix import LARGEST, MIX, held_out_problems
from traces import Problem, check
from vllm import LLM, SamplingParams

BUCKETS = (0, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Group:
    """One prompt and its samples."""

    problem: Problem
    prompt_tokens: int
    texts: list[str]
    lengths: list[int]
    truncated: list[bool]

    @property
    def right(self) -> list[bool]:
        return [check(self.problem.prompt, text) for text in self.texts]


def sample(model: Path, problems: list[Problem], samples: int, max_tokens: int, seed: int) -> list[Group]:
    """Samples all groups, in the order of the problems. Lengths include the end token."""
    llm = LLM(
        model=str(model),
        seed=seed,
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=4096,
        max_num_seqs=64,
        kv_cache_memory_bytes=1 << 30,
    )
    parameters = SamplingParams(n=samples, temperature=1.0, max_tokens=max_tokens)
    outputs = llm.generate([chat_text(problem.prompt) for problem in problems], parameters, use_tqdm=False)
    return [
        Group(
            problem=problem,
            prompt_tokens=len(output.prompt_token_ids or []),
            texts=[response.text for response in output.outputs],
            lengths=[len(response.token_ids) for response in output.outputs],
            truncated=[response.finish_reason == "length" for response in output.outputs],
        )
        for problem, output in zip(problems, outputs, strict=True)
    ]


def bucket_of(length: float) -> str:
    """Returns the name of a length's bucket, such as `128-256`."""
    for low, high in itertools.pairwise(BUCKETS):
        if length <= high:
            return f"{low}-{high}"
    return f"{BUCKETS[-1]}+"


def accuracy(groups: list[Group]) -> dict[str, object]:
    """Returns the share of right answers and the number of samples, in all and by the group's bucket (median length).

    The buckets are those of groups, not of samples: a wrong response often has another length than its siblings.
    """
    by_bucket: dict[str, list[bool]] = {}
    for group in sorted(groups, key=lambda group: statistics.median(group.lengths)):
        by_bucket.setdefault(bucket_of(statistics.median(group.lengths)), []).extend(group.right)
    everything = [right for group in groups for right in group.right]
    return {
        "accuracy": round(statistics.mean(everything), 4),
        "samples": len(everything),
        "groups_with_right_and_wrong": sum(len(set(group.right)) == 2 for group in groups),
        "by_length": {
            name: {"accuracy": round(statistics.mean(values), 4), "samples": len(values)}
            for name, values in by_bucket.items()
        },
    }


def length_numbers(groups: list[Group]) -> dict[str, float]:
    """Returns quantiles of the lengths, their mean variance within groups, and the variance of the groups' means."""
    lengths = sorted(length for group in groups for length in group.lengths)
    means = [statistics.mean(group.lengths) for group in groups]
    spreads = [statistics.stdev(group.lengths) / statistics.mean(group.lengths) for group in groups]
    return {
        "median": statistics.median(lengths),
        "p90": lengths[int(0.90 * len(lengths))],
        "p99": lengths[int(0.99 * len(lengths))],
        "max": lengths[-1],
        "mean": round(statistics.mean(lengths), 1),
        "truncated": round(statistics.mean(flag for group in groups for flag in group.truncated), 5),
        "variance_within_groups": round(statistics.mean(statistics.variance(group.lengths) for group in groups), 1),
        "variance_between_groups": round(statistics.variance(means), 1),
        "mean_coefficient_of_variation_within": round(statistics.mean(spreads), 4),
        "coefficient_of_variation_between": round(statistics.stdev(means) / statistics.mean(means), 4),
    }


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=here / "model")
    parser.add_argument("--groups", type=int, default=520)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=3072)
    parser.add_argument("--seed", type=int, default=520)
    parser.add_argument("--out", type=Path, default=here, help="folder for results.json and lengths.json")
    parser.add_argument("--show", type=int, default=0, help="number of samples to print")
    options = parser.parse_args()
    problems = held_out_problems(options.groups, options.seed)
    started = time.monotonic()
    groups = sample(options.model, problems, options.samples, options.max_tokens, options.seed)
    recipe = {
        "groups": len(groups),
        "samples": options.samples,
        "temperature": 1.0,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
        "mix": MIX,
        "largest": LARGEST,
        "sizes": "even strata of a log scale over each task's range; prompts held out from training",
    }
    results = {
        "recipe": recipe,
        "seconds": round(time.monotonic() - started),
        "all": {**accuracy(groups), **length_numbers(groups)},
        **{
            task: {**accuracy(mine), **length_numbers(mine)}
            for task in MIX
            if (mine := [group for group in groups if group.problem.task == task])
        },
    }
    rows = [
        json.dumps({"task": g.problem.task, "prompt_tokens": g.prompt_tokens, "lengths": g.lengths}) for g in groups
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    lengths = f'{{"recipe": {json.dumps(recipe)},\n"groups": [\n' + ",\n".join(rows) + "\n]}\n"
    (options.out / "lengths.json").write_text(lengths)
    print(json.dumps(results, indent=1))
    for group in groups[: options.show]:
        print(f"--- {group.problem.prompt} (answer {group.problem.answer}, lengths {group.lengths}, {group.right})")
        print(group.texts[0])


if __name__ == "__main__":
    main()
