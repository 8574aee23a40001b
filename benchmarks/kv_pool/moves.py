"""Measures the cost of a move and of a long prompt on a real engine: contexts fetched from the KV pool or recomputed.

    PYTHONPATH=benchmarks python benchmarks/kv_pool/moves.py

Two engines with a random model of 95 million parameters in float32 run in one process and on one core each. The first
engine generates a response of a given number of tokens and the second one continues it. The result is the time in
seconds from the move to the next token, with the pool and without. Each repeat has a different response, so the second
engine's own cache has none of it; ways take turns. With `--prompt` the context is a prompt that the first engine has
computed for another response of the group.
"""

import argparse
import json
import multiprocessing as mp
import os
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.random_model import VOCABULARY, make_model
from support.stamp import Stamp

from openseer_core.manifest.job import Model, Parallelism, Sampling
from openseer_worker.engine import EngineRequest
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.kv_pool.sweeps import alone
from openseer_worker.vllm.engine import VllmEngine

LENGTHS = (1024, 4096)
PROMPT_TOKENS = 24
LONG_PROMPT = 8000
WAYS = ("shared-directory", "none")
TARGET = 5.0
"""Target: ratio of the time to compute a context again to the time to fetch it."""


def main() -> None:
    """Measures moves of all lengths and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pool", type=Path, default=Path("/dev/shm"), help="folder in which the pool is created")
    parser.add_argument(
        "--prompt", action="store_true", help=f"measure a prompt of {LONG_PROMPT:,} tokens in place of responses"
    )
    parser.add_argument("--quick", action="store_true", help="one repeat of the shorter length")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    lengths, repeats = (LENGTHS[:1], 1) if options.quick else (LENGTHS, options.repeats)
    if options.prompt:
        lengths = (0,)
    with tempfile.TemporaryDirectory(dir=options.pool) as folder:
        model = Path(folder) / "model"
        parameters = make_model(model)
        pool = EnginePool("shared-directory", Path(folder) / "pool")
        first, second = (child(model, pool, core) for core in (0, 1))
        rows = [row for length in lengths for row in measure(first, second, length, repeats)]
        for pipe in (first, second):
            pipe.send(None)
        bytes_held = sum(file.stat().st_size for file in pool.folder.rglob("*") if file.is_file())
    Console(width=120).print(table(rows))
    if options.json:
        fields = {"rows": rows, "target": TARGET, "parameters": parameters, "pool_bytes": bytes_held}
        options.json.write_text(json.dumps(fields | stamp.fields(), indent=1))


def child(model: Path, pool: EnginePool, core: int) -> Connection:
    """An engine in a process of its own: takes (way, length, number), gives seconds, tokens fetched, and its folder."""
    ours, theirs = mp.Pipe()
    mp.get_context("spawn").Process(target=serve, args=(theirs, model, pool, core), daemon=True).start()
    return ours


def serve(pipe: Connection, folder: Path, pool: EnginePool, core: int) -> None:
    """Runs the engine and replies to each message, in the child process."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    size: dict[str, Any] = {"max_model_len": 8192, "num_gpu_blocks_override": 1025, "max_num_batched_tokens": 2048}
    model = Model(path=str(folder), dtype="float32", engine_args=size)
    engine = VllmEngine(model, Parallelism(), Sampling(), cache_salt="moves", pool=pool)
    engine.start(lambda: None)
    while (order := pipe.recv()) is not None:
        way, length, number = order
        with alone(pool.folder):
            pass  # a pool is written only while it has a reader
        place = f"0/v/{length}-{number}" if way != "none" else ""
        chance = random.Random(f"{way} {length} {number}")
        sizes = PROMPT_TOKENS if length else LONG_PROMPT, length
        prompt, tokens = ([chance.randrange(4, VOCABULARY) for _ in range(size)] for size in sizes)
        sampling = Sampling(temperature=0, ignore_eos=True)
        request = EngineRequest(f"{order}", "g", 0, prompt, tokens, length + 3, sampling, kv_place=place)
        before, began = engine.metrics(), time.perf_counter()
        engine.add(request)
        first = 0.0
        while True:
            engine.check()
            outputs = engine.collect()
            if outputs and outputs[0].tokens and not first:
                first = time.perf_counter() - began
            if outputs and outputs[0].finish is not None:
                break
            time.sleep(0.0005)
        after = engine.metrics()
        kept = pool.folder / place
        fetched = int(after["context_fetched"]) - int(before["context_fetched"])
        pipe.send((first, fetched, str(kept)))


def measure(first: Connection, second: Connection, length: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each way; the first repeat is discarded."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    fetched: list[int] = []
    for number in range(repeats + 1):
        for way in WAYS if number % 2 else reversed(WAYS):
            if way != "none":
                first.send((way, length, number))
                _, _, kept = first.recv()
                settle(Path(kept))
            second.send((way, length, number))
            seconds, tokens, _ = second.recv()
            print(f"{length or LONG_PROMPT} tokens, {way}: {seconds:.2f} s, {tokens} fetched", flush=True)
            if number:
                found[way].append(seconds)
            if number and way != "none":
                fetched.append(tokens)
    middle = {way: statistics.median(seconds) for way, seconds in found.items()}
    return [
        {
            "length": length or LONG_PROMPT,
            "way": way,
            "seconds": seconds,
            "median": middle[way],
            "times_as_fast": middle["none"] / middle[way],
            "fetched_tokens": statistics.median(fetched) if way != "none" else 0,
        }
        for way, seconds in found.items()
    ]


def settle(folder: Path) -> None:
    """Waits until the pool is not written any more."""
    before = -1
    while (now := len(list(folder.glob("*")))) != before:
        before = now
        time.sleep(0.5)


def table(rows: list[dict[str, Any]]) -> Table:
    """A row for each length and way."""
    result = Table(title="seconds from a move to the next token")
    for column in ("tokens", "pool", "median s", "from", "to", "times as fast", "tokens fetched"):
        result.add_column(column, justify="left" if column == "pool" else "right")
    for row in rows:
        low, high = min(row["seconds"]), max(row["seconds"])
        cells = (f"{row['median']:.3f}", f"{low:.3f}", f"{high:.3f}", f"{row['times_as_fast']:.1f}")
        result.add_row(f"{row['length']:,}", row["way"], *cells, f"{row['fetched_tokens']:,.0f}")
    return result


if __name__ == "__main__":
    main()
