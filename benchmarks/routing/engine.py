"""Measures the cost of capturing routed experts to an engine: processor time of the same requests with and without.

    PYTHONPATH=benchmarks python benchmarks/routing/engine.py

One engine is built with capture, for a random mixture of experts in float32. In the arm `captured` the engine returns
rows, which are written to files every 0.25 s. In `without` the model's routers are unbound, so that only a proposer
without drafts remains. The result is processor time of the whole process, on which other load of the machine has less
effect than on seconds.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from support.random_model import VOCABULARY, make_mixture
from support.rounds import interval, ratios
from support.stamp import Stamp

from openseer_core.manifest.job import Model, Parallelism, Sampling
from openseer_core.routed_rows import Stretch
from openseer_store.routed.records import pack_record
from openseer_worker.engine import EngineRequest
from openseer_worker.routing.writer import RowWriter
from openseer_worker.vllm.engine import VllmEngine

SLOTS, PROMPT_TOKENS, LENGTH, WRITE_SECONDS = 16, 64, 256, 0.25
TARGET = 0.97


def main() -> None:
    """Runs the rounds and prints processor time per token and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    rounds, stamp = 1 if options.quick else options.rounds, Stamp()
    spent: dict[str, list[float]] = {"without": [], "captured": []}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder = Path(scratch)
        make_mixture(folder / "model")
        engine = build(folder / "model")
        try:
            one_round(engine, folder, 0, wanted=True)
            for number in range(1, rounds + 1):
                for wanted in (False, True) if number % 2 else (True, False):
                    spent["captured" if wanted else "without"].append(one_round(engine, folder, number, wanted=wanted))
        finally:
            asyncio.run(engine.close())
    for name, seconds in spent.items():
        print(f"{name}: {1e6 * statistics.median(seconds):.0f} us of processor time a token")
    # Rates are the inverse of time.
    ratio = str(interval(ratios(spent["without"], spent["captured"])))
    print(f"tokens by processor time with capture: {ratio} × those without, wanted: {TARGET}")
    if options.json:
        options.json.write_text(json.dumps({"seconds_a_token": spent, "ratio": ratio, **stamp.fields()}, indent=1))


def build(folder: Path) -> VllmEngine:
    """An engine that does not draft."""
    size: dict[str, Any] = {"max_model_len": 512, "num_gpu_blocks_override": 257, "max_num_seqs": SLOTS}
    model = Model(path=str(folder), dtype="float32", engine_args=size)
    engine = VllmEngine(model, Parallelism(), Sampling(), cache_salt="bench", routes=True)
    engine.start(lambda: None)
    return engine


def one_round(engine: VllmEngine, folder: Path, number: int, *, wanted: bool) -> float:
    """Runs SLOTS concurrent responses; returns processor seconds per token."""
    bind(engine, wanted=wanted)
    sampling = Sampling(ignore_eos=True)
    requests: dict[str, EngineRequest] = {}
    for place in range(SLOTS):
        prompt = [4 + (17 * number + 5 * place + position) % (VOCABULARY - 4) for position in range(PROMPT_TOKENS)]
        key = f"{number}-{wanted}-{place}"
        first = PROMPT_TOKENS - 1 if wanted else None
        requests[key] = EngineRequest(key, key, 0, prompt, [], LENGTH, sampling, rows_from=first)
    begun = time.process_time()
    for request in requests.values():
        engine.add(request)
    asyncio.run(collect(engine, folder, len(requests)))
    return (time.process_time() - begun) / (SLOTS * LENGTH)


def bind(engine: VllmEngine, *, wanted: bool) -> None:
    """Turns the capture of the model's routers on or off; no request runs between two rounds."""
    inside: Any = engine
    runner = inside._core.engine_core.model_executor.driver_worker.worker.model_runner
    if wanted:
        runner.drafter._routes.bind(runner.model)
        return
    for module in runner.model.modules():
        router = getattr(module, "router", None)
        if router is not None and hasattr(router, "set_capture_fn"):
            router.set_capture_fn(None)


async def collect(engine: VllmEngine, folder: Path, count: int) -> None:
    """Collects the engine's outputs, as a worker does, until all responses have ended."""
    writer = RowWriter(folder / "rows")
    while count:
        await asyncio.sleep(WRITE_SECONDS)
        engine.check()
        outputs: list[Any] = engine.collect()
        count -= sum(output.finish is not None for output in outputs)
        shape = engine.profile.routing
        if shape is not None:
            pieces = [(folder / "rows" / output.key, pack(output.key, shape, output.routes)) for output in outputs]
            if any(data for _, data in pieces):
                await writer.append([piece for piece in pieces if piece[1]])


def pack(name: str, shape: Any, stretches: tuple[Stretch, ...]) -> bytes:
    """Records of these rows."""
    return b"".join(pack_record(name, shape, stretch) for stretch in stretches)


if __name__ == "__main__":
    main()
