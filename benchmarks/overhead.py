"""Measures the overhead of openseer over vLLM alone: two real engines, one core each, the same requests to each.

    python benchmarks/overhead.py [--through api]

Direct: vLLM's `LLM.generate` with all requests submitted at once. openseer: the worker loop, a real Redis, and a
driver that writes results; or the trainers' API over HTTP, its batch controller, and its client that reads results.
Pairs are interleaved, because the speed of machines varies; the 95 % interval is over the pairs.
All lengths are equal, so that scheduling cannot compensate overhead.
"""

import argparse
import asyncio
import json
import math
import multiprocessing as mp
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scipy import stats
from support.stamp import Stamp

from openseer_api.app import create_app
from openseer_api.batch_controller import control
from openseer_api.http.auth import BearerAuth
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext, OneJob
from openseer_client import AsyncClient
from openseer_core.admission import limits_of_manifest
from openseer_core.ids import worker_name
from openseer_core.manifest.parse import parse_job
from openseer_core.wire.batches import Group
from openseer_core.wire.results import ResultItem
from openseer_driver.driver import Driver
from openseer_driver.prompts.source import open_source
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.submission import check_prompts, read_groups
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_text.rendering import open_codec
from openseer_worker.engine_factory import build_engine
from openseer_worker.loop import Worker
from openseer_worker.settings import WorkerSettings
from openseer_worker.vllm.building import preload

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples/tiny-model/model"
WORKERS = 2
SLOTS = 16
PROMPT_TOKENS = 24
KV_BYTES = 256 * 2**20


def main() -> None:
    """Runs the pairs and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--through",
        choices=("driver", "api"),
        default="driver",
        help="openseer's side: a driver, or the API with a client",
    )
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--requests", type=int, default=64, help="requests per engine")
    parser.add_argument("--length", type=int, default=256, help="tokens per response")
    parser.add_argument("--quick", action="store_true", help="2 pairs of a quarter of the work")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.pairs, options.requests = 2, max(SLOTS, options.requests // 4)
    preload(str(MODEL))
    direct = [_child(serve_direct, index) for index in range(WORKERS)]
    # An engine process serves one run: vLLM keeps global state. All are forked now, while this is a single thread.
    ours = [[_child(serve_openseer, index) for index in range(WORKERS)] for _ in range(options.pairs + 1)]
    measurements = measure(direct, ours, options) | stamp.fields()
    for pipe in direct:
        pipe.send(None)
    report(measurements)
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def _child(target: Callable[[Connection, int], None], index: int) -> Connection:
    """Starts a process on the `index`-th core; returns it and the pipe to it."""
    context = mp.get_context("fork")
    ours, theirs = context.Pipe()
    context.Process(target=target, args=(theirs, index), daemon=True).start()
    return ours


def measure(
    direct_pipes: list[Connection], our_pipes: list[list[Connection]], options: argparse.Namespace
) -> dict[str, Any]:
    """Measures interleaved pairs, after one discarded run of each kind."""
    work = {"requests": options.requests, "length": options.length}
    direct: list[float] = []
    ours: list[float] = []
    outside: list[float] = []
    for pair, pipes in enumerate(our_pipes):
        first = one_direct(direct_pipes, work)
        arm = one_openseer if options.through == "driver" else one_api
        second, cpu = asyncio.run(arm(pipes, work))
        print(f"pair {pair}: direct {first:,.0f} tok/s, openseer {second:,.0f} tok/s", flush=True)
        if pair:
            direct.append(first)
            ours.append(second)
            outside.append(cpu)
    ratios = [own / base for own, base in zip(ours, direct, strict=True)]
    student: Any = stats.t
    margin = float(student.ppf(0.975, len(ratios) - 1)) * statistics.stdev(ratios) / math.sqrt(len(ratios))
    return {
        "direct_tokens_per_second": direct,
        "openseer_tokens_per_second": ours,
        "ratio_mean": statistics.mean(ratios),
        "ratio_ci95": [statistics.mean(ratios) - margin, statistics.mean(ratios) + margin],
        "cpu_seconds_outside_engine_per_1000_tokens": statistics.median(outside),
        "work": work,
        "through": options.through,
    }


def report(measurements: dict[str, Any]) -> None:
    """One readable paragraph."""
    low, high = measurements["ratio_ci95"]
    print(
        f"openseer / direct: {measurements['ratio_mean']:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{len(measurements['openseer_tokens_per_second'])} pairs); CPU outside the engine: "
        f"{measurements['cpu_seconds_outside_engine_per_1000_tokens'] * 1000:.1f} ms per 1,000 tokens"
    )


# ---- the two arms, seen from the parent


def one_direct(pipes: list[Connection], work: dict[str, int]) -> float:
    """Tokens per second of both engines through vLLM's `LLM.generate`."""
    started = time.monotonic()
    for pipe in pipes:
        pipe.send(work)
    tokens = sum(pipe.recv()["tokens"] for pipe in pipes)
    return tokens / (time.monotonic() - started)


async def one_openseer(pipes: list[Connection], work: dict[str, int]) -> tuple[float, float]:
    """Tokens per second through the product, and CPU seconds outside the engine per 1,000 tokens."""
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        folder = RunFolder(path)
        folder.create()
        document = manifest(folder.path / "prompts.jsonl", work)
        job = parse_job(document, "benchmark")
        async with EmbeddedRedis(folder.store_folder) as url:
            store = await open_store(url, job.name)
            checked = check_prompts(job, open_source(job), lambda _: None)
            codec = open_codec(job.spec.model)
            groups = list(read_groups(job, checked, codec, limits_of_manifest(job.spec.model), await store.now()))
            for pipe in pipes:
                pipe.send({"document": document, "url": url})
            for pipe in pipes:
                await asyncio.to_thread(pipe.recv)  # its engine is loaded
            before = time.process_time()
            with ResultsWriter(folder) as writer:
                driver = Driver(store, groups, writer, codec)
                await driver.submit()
                for pipe in pipes:
                    pipe.send("go")
                await driver.collect()
            own = time.process_time() - before
            for index in range(WORKERS):
                await store.request_drain(worker_name(index))
            reports = [await asyncio.to_thread(pipe.recv) for pipe in pipes]
            redis = await redis_cpu(url)
            await store.close()
        lines = list(folder.results())
    tokens = sum(len(line.token_ids) for line in lines)
    begin = min(line.timings.started_at or line.timings.finished_at for line in lines)
    end = max(line.timings.finished_at for line in lines)
    cpu = own + redis + sum(report["cpu"] for report in reports)
    return tokens / (end - begin), cpu / tokens * 1000


async def one_api(pipes: list[Connection], work: dict[str, int]) -> tuple[float, float]:
    """The same through the API: a trainer's client uploads the groups and reads the results over HTTP."""
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        document = manifest(Path(path) / "prompts.jsonl", work)
        del document["spec"]["prompts"]
        sampling = {"maxTokens": work["length"], "minTokens": work["length"], "ignoreEos": True}
        document["spec"] |= {"mode": "serve", "sampling": sampling}
        job = parse_job(document, "benchmark")
        async with EmbeddedRedis(Path(path) / "store") as url:
            store = await open_store(url, job.name)
            context = JobContext(job, store)
            app = create_app(OneJob(context), BearerAuth("t"))
            server = WebServer(app, finish_seconds=1)
            tasks = [asyncio.create_task(server.serve()), asyncio.create_task(control(context))]
            for pipe in pipes:
                pipe.send({"document": document, "url": url})
            for pipe in pipes:
                await asyncio.to_thread(pipe.recv)  # its engine is loaded
            before = time.process_time()
            port = server.servers[0].sockets[0].getsockname()[1]
            items = await train(f"http://127.0.0.1:{port}", Path(path) / "prompts.jsonl", pipes)
            own = time.process_time() - before
            for index in range(WORKERS):
                await store.request_drain(worker_name(index))
            reports = [await asyncio.to_thread(pipe.recv) for pipe in pipes]
            redis = await redis_cpu(url)
            server.should_exit = True
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()
    tokens = sum(len(item.token_ids) for item in items)
    begin = min(chunk.claimed_at for item in items for chunk in item.chunks)
    end = max(item.finished_at for item in items)
    cpu = own + redis + sum(report["cpu"] for report in reports)
    return tokens / (end - begin), cpu / tokens * 1000


async def train(url: str, prompts: Path, pipes: list[Connection]) -> list[ResultItem]:
    """A trainer's calls: submits, reads and acknowledges one batch."""
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    async with AsyncClient(url, token="t") as client:
        batch = await client.open_batch()
        await batch.submit([Group(id=row["id"], prompt_token_ids=row["prompt_token_ids"]) for row in rows])
        await batch.seal()
        for pipe in pipes:
            pipe.send("go")
        return [item async for item in batch.results(acknowledge=True) if isinstance(item, ResultItem)]


async def redis_cpu(url: str) -> float:
    """CPU seconds that the server has used."""
    from redis.asyncio import Redis  # noqa: PLC0415 - for values that the product does not read

    client: Any = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]
    info = await client.info("cpu")
    await client.aclose()
    return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


def manifest(prompts: Path, work: dict[str, int]) -> dict[str, Any]:
    """The RolloutJob of one run; with `round-robin` each engine gets half of the groups, each group whole."""
    chance = random.Random(0)
    with prompts.open("w") as file:
        for number in range(work["requests"] * WORKERS // 8):
            ids = [chance.randrange(4, 60) for _ in range(PROMPT_TOKENS)]
            file.write(
                json.dumps({"id": f"g{number}", "prompt_token_ids": ids, "lengths": [work["length"]] * 8}) + "\n"
            )
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "overhead"},
        "spec": {
            "model": {"path": str(MODEL), "engineArgs": {"max_num_seqs": SLOTS, "kv_cache_memory_bytes": KV_BYTES}},
            "prompts": {"path": str(prompts)},
            "sampling": {"maxTokens": work["length"], "forceLengths": True},
            "rollout": {"policy": "round-robin"},
            "workers": {"replicas": WORKERS},
        },
    }


# ---- the children: one core and one engine each


def serve_direct(pipe: Connection, index: int) -> None:
    """Runs vLLM's own `LLM` once for each message."""
    _pin(index)
    llm = direct_engine()
    while (work := pipe.recv()) is not None:
        pipe.send(run_direct(llm, work, index))


def serve_openseer(pipe: Connection, index: int) -> None:
    """Runs one worker of the product, once."""
    _pin(index)
    pipe.send(asyncio.run(run_openseer(pipe, pipe.recv(), index)))


def _pin(index: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})


def direct_engine() -> Any:
    """vLLM's own `LLM` with the settings that the product uses."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM  # noqa: PLC0415 - imported in the parent already

    return LLM(
        str(MODEL),
        enforce_eager=True,
        block_size=32,
        kv_cache_memory_bytes=KV_BYTES,
        max_num_seqs=SLOTS,
        logprobs_mode="processed_logprobs",
        disable_log_stats=False,
    )


def run_direct(llm: Any, work: dict[str, int], seed: int) -> dict[str, Any]:
    """Submits all requests at once."""
    from vllm import SamplingParams  # noqa: PLC0415

    chance = random.Random(seed)
    group_prompts = [[chance.randrange(4, 60) for _ in range(PROMPT_TOKENS)] for _ in range(work["requests"] // 8)]
    prompts = [{"prompt_token_ids": ids} for ids in group_prompts for _ in range(8)]
    params = SamplingParams(max_tokens=work["length"], ignore_eos=True, logprobs=0, detokenize=False)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return {"tokens": sum(len(output.outputs[0].token_ids) for output in outputs)}


async def run_openseer(pipe: Connection, assignment: dict[str, Any], index: int) -> dict[str, Any]:
    """The product's worker until it is asked to drain; CPU seconds of its event loop's thread."""
    settings = WorkerSettings(parse_job(assignment["document"], "benchmark"), assignment["url"], index)
    store = await open_store(settings.store_url, settings.job.name)
    worker = Worker(settings, store, build_engine(settings))
    pipe.send("ready")
    pipe.recv()
    before = time.thread_time()
    await worker.run()
    cpu = time.thread_time() - before
    await store.close()
    return {"cpu": cpu}


if __name__ == "__main__":
    main()
