"""Synthetic reasoning tasks: prompts, random worked-out traces, and a checker; pure functions of a `random.Random`.

Four tasks: Collatz step counts, long addition, sorting letters, multiplication. A trace restates its small state at
each step, so that every step depends on few nearby tokens. Its method, verbosity and re-checks are drawn at random from
a distribution that depends on the prompt: traces of one prompt are similar but not equal.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

TASKS = ("collatz", "add", "sort", "mul")
ANSWER_MARK = "=> "
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
# Probabilities of (terse, mixed, verbose) for three kinds of prompts; the prompt's text determines its kind.
LEANINGS = ((0.80, 0.15, 0.05), (0.15, 0.70, 0.15), (0.05, 0.15, 0.80))
VERBOSITY = (0.0, 0.35, 1.0)  # chance that a step is written out in full


@dataclass(frozen=True)
class Problem:
    """One prompt with its right answer."""

    task: str
    prompt: str
    answer: str


def is_held_out(prompt: str) -> bool:
    """Whether this prompt is only for evaluation, never for training (one in ten, by hash)."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 10 == 0


def check(prompt: str, text: str) -> bool:
    """Whether the text's final answer is the right one."""
    _, mark, tail = text.rpartition(ANSWER_MARK)
    return bool(mark) and tail.strip() == answer_of(prompt)


def answer_of(prompt: str) -> str:
    """Computes the right final answer from the prompt."""
    task, _, body = prompt.partition(" ")
    match task:
        case "collatz":
            return str(len(collatz_path(int(body))) - 1)
        case "add":
            left, right = body.split("+")
            return str(int(left) + int(right))
        case "sort":
            return "".join(sorted(body))
        case "mul":
            left, right = body.split("*")
            return str(int(left) * int(right))
        case _:
            raise ValueError(f"unknown task: {task!r}")


def sample_problem(rng: random.Random, task: str, low: float = 0.0, high: float = 1.0) -> Problem:
    """Draws a problem whose size is between the fractions `low` and `high` of the task's range."""
    prompt = PROMPTS[task](rng, low + (high - low) * rng.random())
    return Problem(task, prompt, answer_of(prompt))


def sample_trace(rng: random.Random, prompt: str, skip_sums: bool = False) -> str:
    """Draws a correct trace for the prompt, which ends with the answer line. `skip_sums`: see _add_trace."""
    task, _, body = prompt.partition(" ")
    work = _add_trace(rng, body, skip_sums) if task == "add" else TRACES[task](rng, body)
    return work + ANSWER_MARK + answer_of(prompt)


def _leaning(rng: random.Random, kind: int) -> int:
    return rng.choices((0, 1, 2), LEANINGS[kind])[0]


def _log_scale(fraction: float, low: int, high: int) -> int:
    """Returns the size at `fraction` of a log scale from `low` to `high`."""
    return min(high, int(math.exp(math.log(low) + fraction * (math.log(high + 1) - math.log(low)))))


def _digits(rng: random.Random, count: int) -> int:
    return rng.randrange(10 ** (count - 1), 10**count)


# Collatz: count the steps down to 1.


def collatz_path(n: int) -> list[int]:
    """Returns the Collatz sequence from n to 1."""
    path = [n]
    while path[-1] != 1:
        n = path[-1]
        path.append(3 * n + 1 if n % 2 else n // 2)
    return path


COLLATZ_MAX = 2999
COLLATZ_MAX_STEPS = 182


def _collatz_prompt(rng: random.Random, size: float) -> str:
    """Draws a start whose number of steps grows with `size`, on a log scale: long sequences are rare."""
    steps = _log_scale(size, 4, COLLATZ_MAX_STEPS)
    near = [n for n in range(3, COLLATZ_MAX + 1) if abs(_COLLATZ_STEPS[n] - steps) <= 1 + steps // 10]
    return f"collatz {rng.choice(near)}"


_COLLATZ_STEPS = [0, 0, *(len(collatz_path(n)) - 1 for n in range(2, COLLATZ_MAX + 1))]


def _collatz_trace(rng: random.Random, body: str) -> str:
    path = collatz_path(int(body))
    verbosity = VERBOSITY[_leaning(rng, (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)[path[0] % 10])]
    lines: list[str] = []
    for index, (n, following) in enumerate(itertools.pairwise(path), 1):
        work = f"{n}*3+1=" if n % 2 else f"{n}/2="
        lines.append(f"{index}:{work if rng.random() < verbosity else ''}{following}\n")
    if rng.random() < 0.15:  # a re-check: read the last numbers backwards
        back = path[::-1][: rng.randint(3, 6)]
        lines.append("check " + " ".join(map(str, back)) + "\n")
    return "".join(lines)


# Addition: removes the last column at each step, and restates the rest, the carry and the result so far.


ADD_MAX_DIGITS = 24


def _add_prompt(rng: random.Random, size: float) -> str:
    count = _log_scale(size, 2, ADD_MAX_DIGITS)
    return f"add {_digits(rng, count)}+{_digits(rng, count)}"


def _add_trace(rng: random.Random, body: str, skip_sums: bool = False) -> str:
    """With `skip_sums` the sum of a column may be left out; otherwise all are written, and some are re-checked."""
    left, right = body.split("+")
    leaning = _leaning(rng, (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)[int(left[0])])
    verbosity, recheck = VERBOSITY[leaning], (0.0, 0.2, 0.6)[leaning]
    carry, result = 0, ""
    lines: list[str] = []
    while left:
        total = int(left[-1]) + int(right[-1]) + carry
        if not skip_sums or rng.random() < verbosity:
            lines.append(f"{left[-1]}+{right[-1]}+{carry}={total}\n")
            if not skip_sums and rng.random() < recheck:
                lines.append(f"again {lines[-1]}")
        left, right, carry, result = left[:-1], right[:-1], total // 10, f"{total % 10}{result}"
        lines.append(f"{left}+{right},{carry}:{result}\n")
    return "".join(lines)


# Sorting distinct letters: by insertion, by insertion with the rest restated, or by selection.


def _sort_prompt(rng: random.Random, size: float) -> str:
    return "sort " + "".join(rng.sample(ALPHABET, _log_scale(size, 3, 26)))


def _sort_trace(rng: random.Random, body: str) -> str:
    kind = ALPHABET.index(body[0]) // 9
    method = _leaning(rng, kind)
    lines = _selection(body) if method == 1 else _insertion(body, with_rest=method == 2)
    if rng.random() < (0.1, 0.3, 0.5)[kind]:  # a re-check at the end
        lines.append("check " + "<".join(sorted(body)) + "\n")
    return "".join(lines)


def _insertion(body: str, with_rest: bool) -> list[str]:
    lines: list[str] = []
    for index, letter in enumerate(body):
        done = "".join(sorted(body[: index + 1]))
        lines.append(f"+{letter} {done}" + (f" ?{body[index + 1 :]}" if with_rest else "") + "\n")
    return lines


def _selection(body: str) -> list[str]:
    lines: list[str] = []
    while body:
        least = min(body)
        body = body.replace(least, "")
        lines.append(f"-{least} {body}\n")
    return lines


# Multiplication: one partial product per digit (worked out or not), then their sums, not worked out: the hardest task.


def _mul_prompt(rng: random.Random, size: float) -> str:
    left, right = ((2, 1), (2, 2), (3, 1), (3, 2), (4, 2), (3, 3), (4, 3))[min(6, int(size * 7))]
    return f"mul {_digits(rng, left)}*{_digits(rng, right)}"


def _mul_trace(rng: random.Random, body: str) -> str:
    left, right = body.split("*")
    verbosity = (0.1, 0.5, 1.0)[_leaning(rng, (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)[int(left[0])])]
    recheck = (0.05, 0.2, 0.4)[int(right[0]) % 3]
    lines: list[str] = []
    partials: list[int] = []
    for zeros, digit in enumerate(reversed(right)):
        work = _digit_product(left, digit) if rng.random() < verbosity else ""
        line = f"{left}*{digit}:{work}={int(left) * int(digit)}\n"
        lines.extend([line, "again " + line] if rng.random() < recheck else [line])
        partials.append(int(left) * int(digit) * 10**zeros)
    total = partials[0]
    for partial in partials[1:]:
        lines.append(f"{total}+{partial}={total + partial}\n")
        total += partial
    return "".join(lines)


def _digit_product(left: str, digit: str) -> str:
    """Returns the columns of a product, such as `7*6+0=42 4*6+4=28 `; a carry is the previous column's tens digit."""
    carry, columns = 0, ""
    for figure in reversed(left):
        product = int(figure) * int(digit) + carry
        columns += f"{figure}*{digit}+{carry}={product} "
        carry = product // 10
    return columns


PROMPTS: dict[str, Callable[[random.Random, float], str]] = {
    "collatz": _collatz_prompt,
    "add": _add_prompt,
    "sort": _sort_prompt,
    "mul": _mul_prompt,
}
TRACES: dict[str, Callable[[random.Random, str], str]] = {
    "collatz": _collatz_trace,
    "sort": _sort_trace,
    "mul": _mul_trace,
}
