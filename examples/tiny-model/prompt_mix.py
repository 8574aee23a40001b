"""Draws held-out prompts, for the evaluation and for `prompts.jsonl`, the prompts of examples/arithmetic.yaml."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from traces import Problem, is_held_out, sample_problem

# Share of each task. Sizes are spread evenly on a log scale, so short responses are common and very long ones rare.
MIX = {"collatz": 0.35, "add": 0.25, "sort": 0.20, "mul": 0.20}
# Largest size of each task, as a fraction of its range: the model cannot compute products of more than 4x2 digits.
LARGEST = {"collatz": 1.0, "add": 1.0, "sort": 1.0, "mul": 5 / 7}


def held_out_problems(count: int, seed: int) -> list[Problem]:
    """Returns `count` distinct held-out problems, shuffled, with tasks in the proportions of MIX."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    seen: set[str] = set()
    tasks = [task for task, share in MIX.items() for _ in range(round(share * count))]
    for task in tasks[:count]:
        # One size per stratum instead of independent draws, so that even 40 groups include very long responses.
        mine, index = tasks.count(task), sum(problem.task == task for problem in problems)
        low, high = LARGEST[task] * index / mine, LARGEST[task] * (index + 1) / mine
        while True:
            problem = sample_problem(rng, task, low, high)
            if is_held_out(problem.prompt) and problem.prompt not in seen:
                break
            low, high = (
                max(0.0, low - 0.002),
                min(LARGEST[task], high + 0.002),
            )  # wider, since a stratum may have too few distinct prompts
        seen.add(problem.prompt)
        problems.append(problem)
    rng.shuffle(problems)
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "prompts.jsonl")
    options = parser.parse_args()
    counts: dict[str, int] = {}
    with options.out.open("w") as file:
        for problem in held_out_problems(options.groups, options.seed):
            counts[problem.task] = number = counts.get(problem.task, 0) + 1
            metadata = {"task": problem.task, "answer": problem.answer}
            messages = [{"role": "user", "content": problem.prompt}]
            line = {"id": f"{problem.task}-{number:04}", "messages": messages, "metadata": metadata}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
