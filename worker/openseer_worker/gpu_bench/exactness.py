"""Tests that drafts change neither the tokens of greedy texts nor the distribution at temperature 1.

On a small real model, an engine without drafts generates greedy texts and short samples. An engine with drafts then
gets these greedy texts as drafts, with every fifth token wrong, and for its samples always the likeliest continuation.
The results of both engines must agree.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openseer_core.manifest.job import Sampling
from openseer_worker.gpu_bench.figures import read
from openseer_worker.gpu_bench.fixed import GIVEN
from openseer_worker.gpu_bench.plan import SMOKE
from openseer_worker.gpu_bench.stepping import SteppedEngine
from openseer_worker.gpu_bench.ways import Order

PROMPTS, PROMPT_TOKENS = 8, 24
GREEDY_TOKENS = 96
SAMPLE_PROMPT_TOKENS, SAMPLE_TOKENS = 8, 3
LEAST_SEEN = 10
"""Texts that both engines together have drawn less often are counted as one."""
_FIRST_TOKEN = 4
"""The first ordinary token of the tiny model; the tokens before it are special."""


def lines(order: Order) -> Iterator[dict[str, Any]]:
    """Runs one order of the test; yields lines for the file of figures. The order without drafts must run first."""
    engine = SteppedEngine(order)
    built = {"runner": engine.runner, "asynchronous": engine.asynchronous}
    random = np.random.default_rng(0)
    prompts: list[list[int]] = random.integers(
        _FIRST_TOKEN, min(60, engine.vocabulary), (PROMPTS, PROMPT_TOKENS)
    ).tolist()
    sampled = prompts[0][:SAMPLE_PROMPT_TOKENS]
    if order.way == SMOKE:
        greedy, _ = _greedy(engine, prompts)
        if order.exact:
            yield {"kind": "texts", "greedy": greedy, "samples": _samples(engine, order, sampled), **built}
        yield {"kind": "tier", "tier": order.tier}
        return
    texts = read(Path(order.folder)).texts
    assert texts is not None
    GIVEN.texts = {tuple(prompt): [text] for prompt, text in zip(prompts, texts["greedy"], strict=True)}
    GIVEN.spoiled = True
    greedy, steps = _greedy(engine, prompts)
    known: dict[str, int] = texts["samples"]
    likeliest = [[int(token) for token in text.split()] for text in sorted(known, key=lambda text: -known[text])]
    GIVEN.texts, GIVEN.spoiled = {tuple(sampled): likeliest}, False
    samples = _samples(engine, order, sampled)
    chi_square, degrees = two_samples(known, samples)
    yield {
        "kind": "exactness",
        "greedy_same": sum(own == other for own, other in zip(greedy, texts["greedy"], strict=True)),
        "greedy_of": PROMPTS,
        "greedy_tokens": GREEDY_TOKENS,
        "greedy_tokens_per_step": round(GREEDY_TOKENS / steps, 2),
        "chi_square": round(chi_square, 1),
        "degrees": degrees,
        "deviations": round(deviations(chi_square, degrees), 2),
        "samples": order.scale.samples,
        **built,
    }


def two_samples(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[float, int]:
    """Returns chi-square, and its degrees of freedom, for the hypothesis that two samples of equal size have the same
    distribution."""
    both = Counter(one) + Counter(other)
    frequent = [text for text, count in both.items() if count >= LEAST_SEEN]
    pairs = [(one.get(text, 0), other.get(text, 0)) for text in frequent]
    rest = tuple(sum(counts.values()) - sum(pair[at] for pair in pairs) for at, counts in enumerate((one, other)))
    if sum(rest) >= LEAST_SEEN:
        pairs.append((rest[0], rest[1]))
    return sum((left - right) ** 2 / (left + right) for left, right in pairs), max(1, len(pairs) - 1)


def deviations(chi_square: float, degrees: int) -> float:
    """Returns the equivalent number of standard deviations of a normal variable (Wilson and Hilferty's approximation,
    because chi-square itself is skewed with few degrees of freedom)."""
    spread = 2 / (9 * degrees)
    return ((chi_square / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def _greedy(engine: SteppedEngine, prompts: list[list[int]]) -> tuple[list[list[int]], int]:
    """Returns the greedy texts of all prompts, and the number of steps of the slowest text."""
    keys = engine.add(prompts, Sampling(temperature=0.0, ignore_eos=True, max_tokens=GREEDY_TOKENS))
    before = engine.steps
    texts = engine.play(keys)
    return [texts[key] for key in keys], engine.steps - before


def _samples(engine: SteppedEngine, order: Order, prompt: list[int]) -> dict[str, int]:
    """Draws samples of a prompt; returns the number of occurrences of each text."""
    sampling = Sampling(temperature=1.0, ignore_eos=True, max_tokens=SAMPLE_TOKENS)
    seen: Counter[str] = Counter()
    while (missing := order.scale.samples - seen.total()) > 0:
        texts = engine.play(engine.add([prompt] * min(order.most, missing), sampling))
        seen.update(" ".join(map(str, text)) for text in texts.values())
    return dict(seen)
