"""Carries out one order in its process: builds an engine, measures the order's parts, and appends each figure."""

import logging
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from openseer_core.manifest.job import Sampling
from openseer_worker.gpu_bench import exactness
from openseer_worker.gpu_bench.figures import Figure, write, write_figure
from openseer_worker.gpu_bench.plan import EXACTNESS, NGRAM, SMOKE, STOCK, SUFFIX
from openseer_worker.gpu_bench.rates import MOST, tokens_a_step
from openseer_worker.gpu_bench.stepping import SteppedEngine, Timed
from openseer_worker.gpu_bench.ways import Order, rates_of

_LOG = logging.getLogger(__name__)
_REASON_CHARS = 500
_REPEATED = 16
"""Number of equal tokens at the end of a prompt, for draft methods that search earlier text."""
_LEAST_CONTEXT = 16


def run(order: Order) -> int:
    """Runs an order; returns the exit code. An error is written as a note among the figures."""
    folder = Path(order.folder)
    try:
        if order.way in (SMOKE, EXACTNESS):
            for line in exactness.lines(order):
                write(folder, line)
        else:
            _measure(order, folder)
    except Exception as error:  # noqa: BLE001 - the failure of one way must not cost the others' figures
        _LOG.exception("%s", order.way)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARS]
        write(folder, {"kind": "note", "way": order.way, "text": text})
        return 1
    return 0


def _measure(order: Order, folder: Any) -> None:
    deadline = time.monotonic() + order.seconds
    engine = SteppedEngine(order)
    for batch, parts in groupby(order.parts, key=lambda part: part.batch):
        if time.monotonic() > deadline:
            return
        context = context_of(order, engine, batch)
        if context < _LEAST_CONTEXT:
            text = f"batch {batch} does not fit into a cache of {engine.kv_tokens} tokens"
            write(folder, {"kind": "note", "way": order.way, "text": text})
            continue
        engine.reset_peak()
        engine.draft(order.way, 0)
        _begin(order, engine, batch, context)
        for part in parts:
            if time.monotonic() > deadline:
                return
            if not engine.draft(order.way, part.drafts):
                continue
            timed = engine.timed(order.scale.warm, order.scale.steps)
            write_figure(folder, _figure(order, engine, batch, part.drafts, context, timed))
        engine.clear()


def _begin(order: Order, engine: SteppedEngine, batch: int, context: int) -> None:
    """Adds requests with random prompts, long enough for all steps, and steps until each has its first token."""
    repeats = order.way in (NGRAM, SUFFIX)
    random = np.random.default_rng(batch)
    prompts: list[list[int]] = random.integers(0, engine.vocabulary, (batch, context)).tolist()
    token = int(random.integers(engine.vocabulary))
    if repeats:
        prompts = [prompt[:-_REPEATED] + [token] * _REPEATED for prompt in prompts]
    sampling = Sampling(temperature=1.0, ignore_eos=True, max_tokens=engine.context_tokens - context)
    engine.add(prompts, sampling, only_token=token if repeats else None)
    engine.fill()


def context_of(order: Order, engine: SteppedEngine, batch: int) -> int:
    """Returns the tokens of each request's prompt: the scale's number, or fewer if the run would not fit the cache."""
    spare = (order.scale.warm + order.scale.steps + 1) * 2 * (MOST + 1)
    return min(order.scale.context(batch), engine.kv_tokens // batch - spare, engine.context_tokens - spare)


def _figure(order: Order, engine: SteppedEngine, batch: int, drafts: int, context: int, timed: Timed) -> Figure:
    steps = len(timed.step_ms)
    plain = order.way.startswith(STOCK)
    return Figure(
        way=order.way,
        batch=batch,
        drafts=drafts,
        context=context,
        step_ms=timed.step_ms,
        tokens_per_step=1.0 if plain else round(tokens_a_step(rates_of(order.way), drafts), 4),
        counted=round(timed.tokens / steps / batch, 4),
        drafted=round(timed.drafted / steps / batch, 4),
        accepted_by="" if plain else "none" if order.on_cpu else "dice",
        peak_bytes=engine.peak_bytes(),
        runner=engine.runner,
        asynchronous=engine.asynchronous,
        tier=order.tier,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )
