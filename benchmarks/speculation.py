"""Measures tokens per second of one engine with openseer's drafts, vLLM's `suffix` and `ngram`, and without drafts.

    python benchmarks/speculation.py

All ways use the same engine on the same core and differ only in the drafts. The tiny model samples groups of 8 at
temperature 1. A fixed number of requests runs at once, in the order of the groups, as in a rollout; when one ends, the
next one begins. Time is measured until the last one has begun. Ways take turns with the same prompts; a ratio compares
two ways in one round. `suffix` needs arctic-inference (docs/benchmarks.md describes its installation); without it
this way is left out.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import random
import statistics
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support.drafters.arctic import ARCTIC_MISSING, has_arctic
from support.stamp import Stamp
from support.tiny_rollouts import MODEL, prompts

from openseer_core.manifest.job import Model, Sampling, Speculation
from openseer_worker.engine import EngineRequest
from openseer_worker.vllm.building import EngineBuilder
from openseer_worker.vllm.engine import VllmEngine, preload

MOST_AT_ONCE = 64
GROUP_SIZE = 8
GROUPS = {1: 1, 2: 2, 4: 2, 8: 4, 16: 8, 32: 12, 64: 20}
"""By requests at once: how many groups there are."""
_DRAWN = 40
"""Prompts drawn at a time, so that short and long ones are mixed."""
OWN = "openseer"
PLAIN = "none"
PEERS: dict[str, dict[str, Any]] = {
    "suffix": {"method": "suffix"},
    "ngram": {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_min": 2, "prompt_lookup_max": 5},
}
"""vLLM's settings of its own ways; `suffix` drafts up to 24 tokens by its defaults."""


def main() -> None:
    """Runs all ways over all numbers of requests and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=512, help="maximum tokens of a response")
    parser.add_argument("--at-once", type=int, nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--ways", nargs="+", choices=(OWN, *PEERS), default=[OWN, *PEERS])
    parser.add_argument("--quick", action="store_true", help="one round of two numbers of requests")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.rounds, options.tokens, options.at_once = 1, 128, [4, 16]
    if "suffix" in options.ways and not has_arctic():
        print(ARCTIC_MISSING)
        options.ways.remove("suffix")
    preload(str(MODEL))
    pipes = {way: _child(way) for way in (PLAIN, *options.ways)}
    measured = measure(pipes, options)
    for pipe in pipes.values():
        pipe.send(None)
    measurements = {
        "at_once": measured,
        "drafts": {way: pipe.recv() for way, pipe in pipes.items()},
        **stamp.fields(),
    }
    Console(width=130).print(table(measurements))
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def _child(way: str) -> Connection:
    """Starts a process with an engine; returns it and the pipe to it."""
    context = mp.get_context("fork")
    ours, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs, way), daemon=True).start()
    theirs.close()  # so that its end is noticed
    ours.recv()  # one after another: an engine's measurements at its start must not be disturbed
    return ours


def measure(pipes: dict[str, Connection], options: argparse.Namespace) -> dict[str, Any]:
    """The measurements of each round by number of requests and way, after a short discarded round."""
    result: dict[str, Any] = {str(count): {way: [] for way in pipes} for count in options.at_once}
    for pipe in pipes.values():
        pipe.send({"at_once": 4, "tokens": 64, "prompts": _prompts(4, -1), "name": "warm"})
        pipe.recv()
    order = list(pipes)
    for number in range(options.rounds):
        for count in options.at_once:
            work = {"at_once": count, "tokens": options.tokens, "name": f"{number}-{count}"}
            work["prompts"] = _prompts(count, number)
            for way in order:
                pipes[way].send(work)
                result[str(count)][way].append(pipes[way].recv())
            rates = ", ".join(f"{way} {result[str(count)][way][-1]['tokens_per_second']:,.0f}" for way in pipes)
            print(f"round {number}, {count} at once: {rates} tok/s", flush=True)
        order = order[1:] + order[:1]
    return result


def _prompts(count: int, number: int) -> list[list[int]]:
    """Prompts, different ones for each round and number of requests, so that no engine has seen them before."""
    return [ids for _, ids in prompts(_DRAWN, 100 * (number + 1) + count)[: GROUPS[count]]]


# ---- one engine in a process of its own


class MeasuredEngine(VllmEngine):
    """openseer's engine, which counts the tokens of its steps, with drafts by vLLM's settings."""

    def __init__(self, way: str) -> None:
        self.request_steps = self.drafted = self.accepted = 0
        model = Model.model_validate({"path": str(MODEL), "engineArgs": {"max_num_seqs": MOST_AT_ONCE}})
        own = Speculation() if way == OWN else None
        builder = _peer_builder(PEERS[way]) if way in PEERS else EngineBuilder
        super().__init__(model, cache_salt="benchmark", speculation=own, builder=builder)

    def _gather(self, outputs: Any) -> bool:
        self.request_steps += len(outputs.outputs)
        stats = outputs.scheduler_stats and outputs.scheduler_stats.spec_decoding_stats
        if stats:
            self.drafted += stats.num_draft_tokens
            self.accepted += stats.num_accepted_tokens
        return super()._gather(outputs)


def _peer_builder(method: dict[str, Any]) -> type[EngineBuilder]:
    """Builds engines that draft in one of vLLM's own ways."""

    class PeerBuilder(EngineBuilder):
        def make(self, arguments: Any) -> tuple[Any, Any, Any]:
            arguments.speculative_config = method
            made = super().make(arguments)
            # On CPUs vLLM's own ways would verify their drafts with other temperatures than the requests'. It imports
            # numba, which on CPUs vLLM must not find imported when it begins.
            from openseer_worker.vllm.drafting.proposer import _mend_sampling  # noqa: PLC0415  # pyright: ignore[reportPrivateUsage]

            _mend_sampling()
            return made

    return PeerBuilder


@dataclass
class _Counts:
    """An engine's counters at one moment."""

    tokens: float
    request_steps: int
    drafted: int
    accepted: int
    at: float

    @classmethod
    def of(cls, engine: MeasuredEngine) -> "_Counts":
        tokens = float(engine.metrics()["tokens"])
        return cls(tokens, engine.request_steps, engine.drafted, engine.accepted, time.monotonic())


def serve(pipe: Connection, way: str) -> None:
    """Runs the received workloads until None; replies to None whether the engine drafted."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    asyncio.run(play(pipe, way))


async def play(pipe: Connection, way: str) -> None:
    """Builds the engine, runs the workloads and closes the engine."""
    engine = MeasuredEngine(way)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine.start(lambda: (loop.call_soon_threadsafe(ended.set), None)[1])
    pipe.send("ready")
    while (work := await asyncio.to_thread(pipe.recv)) is not None:
        pipe.send(await one_round(engine, ended, work))
    pipe.send(str(engine.metrics().get("drafts", "")))
    await engine.close()


async def one_round(engine: MeasuredEngine, ended: asyncio.Event, work: dict[str, Any]) -> dict[str, float]:
    """Runs all requests, a fixed number at once; counts until the last one has begun, and drops the others then."""
    sampling = Sampling(temperature=1.0, max_tokens=work["tokens"])
    waiting = [
        EngineRequest(
            f"{work['name']}-{number}-{index}", f"{work['name']}-{number}", index, ids, [], work["tokens"], sampling
        )
        for number, ids in enumerate(work["prompts"])
        for index in range(GROUP_SIZE)
    ]
    running: set[str] = set()
    before = _Counts.of(engine)
    while True:
        while waiting and len(running) < work["at_once"]:
            request = waiting.pop(0)
            running.add(request.key)
            engine.add(request)
        await ended.wait()
        ended.clear()
        engine.check()
        running -= {progress.key for progress in engine.collect() if progress.finish is not None}
        if not waiting and len(running) < work["at_once"]:
            break
    after = _Counts.of(engine)
    for key in running:
        engine.abort(key)
    while running:
        running -= {progress.key for progress in engine.collect() if progress.finish is not None}
        await asyncio.sleep(0.01)
    ended.clear()
    steps = after.request_steps - before.request_steps
    return {
        "tokens_per_second": (after.tokens - before.tokens) / (after.at - before.at),
        "tokens_per_step": (after.tokens - before.tokens) / steps,
        "drafted_per_step": (after.drafted - before.drafted) / steps,
        "accepted_per_drafted": (after.accepted - before.accepted) / max(1, after.drafted - before.drafted),
    }


# ---- results


def ratio(rows: dict[str, Any], way: str, base: str = PLAIN) -> tuple[float, float, float]:
    """Median over the rounds of the rate of `way` over that of `base`, and its 95 % interval by bootstrap."""
    pairs = zip(rows[way], rows[base], strict=True)
    ratios = [own["tokens_per_second"] / other["tokens_per_second"] for own, other in pairs]
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), drawn[49], drawn[1949]


def table(measurements: dict[str, Any]) -> Table:
    """A row for each number of requests: the rate without drafts, each way's ratio to it, and its tokens per step."""
    ways = [way for way in measurements["drafts"] if way != PLAIN]
    result = Table("at once", "none tok/s", title="tokens per second over those without drafts")
    for way in ways:
        result.add_column(f"{way} ×")
        result.add_column("tokens a step")
    for count, rows in measurements["at_once"].items():
        cells = [count, f"{statistics.median(row['tokens_per_second'] for row in rows[PLAIN]):,.0f}"]
        for way in ways:
            middle, low, high = ratio(rows, way)
            cells.append(f"{middle:.2f} ({low:.2f}–{high:.2f})")
            cells.append(f"{statistics.median(row['tokens_per_step'] for row in rows[way]):.2f}")
        result.add_row(*cells)
    return result


if __name__ == "__main__":
    main()
