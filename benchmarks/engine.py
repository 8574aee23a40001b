"""Measures tokens per second of one engine on one core, with vLLM's core in the worker's process or in a child.

    python benchmarks/engine.py

Each way runs in a separate process: a fixed number of concurrent responses, from `add` to the last `collect`.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.stamp import Stamp

from openseer_core.manifest.job import Model, Sampling
from openseer_worker.engine import EngineRequest
from openseer_worker.vllm.engine import VllmEngine

MODEL = Path(__file__).resolve().parent.parent / "examples/tiny-model/model"
WAYS = ("inProcess", "child")
PROMPT_TOKENS = 64
COUNTS = (1, 8, 32)


def main() -> None:
    """Measures both ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=300, help="tokens per response")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of short responses")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.tokens, options.rounds = 100, 1
    context = mp.get_context("spawn")
    measurements: dict[str, Any] = {}
    for way in WAYS:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, way, options.tokens, options.rounds))
        process.start()
        measurements[way] = ours.recv()
        process.join()
    table = Table("core", *(f"{count} at once" for count in COUNTS), title="tokens per second on one core")
    for way, rows in measurements.items():
        table.add_row(way, *(", ".join(f"{rate:,.0f}" for rate in rows[str(count)]) for count in COUNTS))
    Console(width=110).print(table)
    measurements |= stamp.fields()
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def serve(pipe: Any, way: str, tokens: int, rounds: int) -> None:
    """Runs one engine, pinned to the first core with all its processes, and returns its rates by count."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pipe.send(asyncio.run(rates(way, tokens, rounds)))


async def rates(way: str, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Tokens per second for each count, after one discarded round."""
    sampling = Sampling(max_tokens=tokens, ignore_eos=True)
    model = Model.model_validate({"path": str(MODEL), "engine_process": way})
    engine = VllmEngine(model, cache_salt="benchmark")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine.start(lambda: (loop.call_soon_threadsafe(ended.set), None)[1])
    result: dict[str, list[float]] = {str(count): [] for count in COUNTS}
    for number in range(rounds + 1):
        for count in COUNTS:
            rate = await one_round(engine, ended, sampling, count, f"{number}-{count}")
            if number:
                result[str(count)].append(rate)
    await engine.close()
    return result


async def one_round(engine: VllmEngine, ended: asyncio.Event, sampling: Sampling, count: int, name: str) -> float:
    """Tokens per second of `count` concurrent responses."""
    chance = random.Random(name)
    started = time.monotonic()
    for index in range(count):
        prompt = [chance.randrange(4, 60) for _ in range(PROMPT_TOKENS)]
        engine.add(EngineRequest(f"{name}-{index}", name, index, prompt, [], sampling.max_tokens, sampling))
    done = 0
    while done < count:
        await ended.wait()
        ended.clear()
        done += sum(progress.finish is not None for progress in engine.collect())
    return count * sampling.max_tokens / (time.monotonic() - started)


if __name__ == "__main__":
    main()
