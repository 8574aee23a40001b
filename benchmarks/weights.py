"""Measures the duration of a weights transaction, by size of the model and number of workers, split by phase.

    python benchmarks/weights.py [--digests | --shared | --passed]

The first part has real vLLM workers (CPU build) over a real Redis, with one core each if there are enough. A running
batch continues with the new weights (mode keep). Each transaction prefetches the files, gives all requests back, loads,
scores a canary and commits. The second part measures the protocol alone, with up to 32 scripted workers in one process,
whose loads take no time.
The third part (`--digests`: only this part) measures the cost of a version's digest, as a fraction of a load's time. A
load is the minimum work of an engine: it reads and copies each tensor. All files are in the page cache. The result is
the minimum of several rounds, since other programs can only add time.
`--shared`: only the time in which one and eight workers of this machine fetch a version, see support/shared_weights.py.
`--passed`: the same for workers that share no folder and pass pieces on to each other.
"""

# transformers and torch have few types.
import argparse
import asyncio
import hashlib
import json
import multiprocessing as mp
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from support.shared_weights import passed, shared
from support.stamp import Stamp

from openseer_api.batch_controller import control
from openseer_api.job.context import JobContext
from openseer_api.routes.weights import publish_weights
from openseer_core.ids import INITIAL_VERSION, GroupId, worker_name
from openseer_core.manifest.parse import parse_job
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.tokens import pack_tokens
from openseer_core.weights.fleet_spec import WeightsTransaction
from openseer_core.weights.publish import Publish, Source
from openseer_core.weights.worker_step import WeightsTarget
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store
from openseer_worker.engine_factory import build_engine
from openseer_worker.loop import Worker
from openseer_worker.settings import WorkerSettings
from openseer_worker.vllm.building import preload
from openseer_worker.weights.folders import TICK_SECONDS, WeightFolders
from openseer_worker.weights.hashing import HASH_THREADS, READ_BYTES

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "examples/tiny-model/model"
SHAPES = {"3 M": None, "27 M": (512, 1536, 8), "109 M": (1024, 3072, 8)}
"""Hidden size, size of the feed-forward layers, and layers; None: the tiny model itself."""
FLEETS = (1, 2)
SCRIPTED = (2, 8, 32)
PATIENCE_SECONDS = 300.0
DIGEST_FILES, DIGEST_BYTES = 4, 512 * 2**20


def document(model: Path, workers: int, engine: str) -> dict[str, Any]:
    """A serving job on that model."""
    scripted = {"stepSeconds": 0.01, "stepSecondsPerRequest": 0.0, "slots": 8}
    spec = {
        "mode": "serve",
        "model": {"path": str(model), "engine": engine, "scripted": scripted},
        "sampling": {"maxTokens": 2000, "minTokens": 2000},
        "workers": {"replicas": workers},
    }
    head = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "weights"}}
    return head | {"spec": spec}


def make_model(folder: Path, shape: tuple[int, int, int] | None) -> None:
    """A model of that shape with random weights and the tiny model's tokenizer."""
    shutil.copytree(TINY, folder)
    if shape is None:
        return
    import torch  # noqa: PLC0415 - in a child only
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    config: Any = AutoConfig.from_pretrained(str(folder))  # pyright: ignore
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = shape
    config.head_dim = config.hidden_size // config.num_attention_heads
    model: Any = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)  # pyright: ignore
    model.save_pretrained(str(folder))


def work(pipe: Connection, index: int) -> None:
    """Runs one real worker."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    assignment = pipe.recv()

    async def run() -> None:
        settings = WorkerSettings(parse_job(assignment["document"], "benchmark"), assignment["url"], index)
        store = await open_store(settings.store_url, settings.job.name)
        await Worker(settings, store, build_engine(settings)).run()
        await store.close()

    if assignment is not None:
        asyncio.run(run())


@asynccontextmanager
async def job_at(path: Path, model: Path, workers: int, engine: str) -> AsyncGenerator[tuple[JobContext, str]]:
    """A job's context with its batch controller, and the URL of its store."""
    job = parse_job(document(model, workers, engine), "benchmark")
    async with EmbeddedRedis(path) as url:
        store = await open_store(url, job.name)
        context = JobContext(job, store)
        controlling = asyncio.create_task(control(context))
        yield context, url
        controlling.cancel()
        await asyncio.gather(controlling, return_exceptions=True)
        await store.close()


async def transactions(context: JobContext, workers: int, folders: list[Path]) -> list[dict[str, float]]:
    """Publishes each folder while a batch runs; seconds by phase, and in all."""
    store = context.store
    until = time.monotonic() + PATIENCE_SECONDS
    while sum(worker.heartbeat.state in ("idle", "busy") for worker in await store.workers()) < workers:
        assert time.monotonic() < until, "the workers did not start"
        await asyncio.sleep(0.1)
    batch, _ = await store.open_batch(OpenBatch(INITIAL_VERSION, "{}"))
    await store.submit([group(batch.number, number, await store.now()) for number in range(2 * workers)])
    seconds: list[dict[str, float]] = []
    for number, folder in enumerate(folders):
        await asyncio.sleep(1.0)
        publish = Publish(version=f"v{number + 1}", source=Source(path=str(folder)), mode="keep")
        await publish_weights(context, publish)
        ended = await ending(store, until)
        assert ended.phase == "done", ended.message
        assert ended.finished_at is not None
        seconds.append(ended.seconds | {"in all": ended.finished_at - ended.started_at})
    await store.forget(batch.number)
    return seconds


async def ending(store: Store, until: float) -> WeightsTransaction:
    """Waits for the end of the transaction and returns it."""
    while (transaction := (await store.fleet_spec()).transaction) is None or transaction.active:
        assert time.monotonic() < until, f"still in {transaction.phase if transaction else 'nothing'}"
        await asyncio.sleep(0.02)
    return transaction


def group(batch: int, number: int, now: float) -> GroupSpec:
    """A group of four long responses."""
    sampling = json.dumps({"maxTokens": 2000, "minTokens": 2000, "ignoreEos": True})
    gid, prompt = GroupId(batch, f"g{number}"), pack_tokens(range(5, 25))
    biases, lanes = (0.0,) * 4, (SHARED_LANE,) * 4
    return GroupSpec(gid, INITIAL_VERSION, number, prompt, 2000, biases, lanes, Priority(0.0), now, sampling=sampling)


async def real(pipes: list[Connection], model: Path, versions: int) -> list[dict[str, float]]:
    """Transactions of a fleet of vLLM workers."""
    folders = [model.with_name(f"{model.name}-{number}") for number in range(versions)]
    for folder in folders:
        shutil.copytree(model, folder)
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        async with job_at(Path(path) / "store", model, len(pipes), "vllm") as (context, url):
            for pipe in pipes:
                pipe.send({"document": document(model, len(pipes), "vllm"), "url": url})
            seconds = await transactions(context, len(pipes), folders)
            for index in range(len(pipes)):
                await context.store.request_drain(worker_name(index))
            while await context.store.workers():
                await asyncio.sleep(0.1)
    return seconds


async def scripted(workers: int, versions: int) -> list[dict[str, float]]:
    """Transactions of scripted workers: the time of the protocol."""
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        folders = [Path(path) / f"w{number}" for number in range(versions)]
        for folder in folders:
            shutil.copytree(TINY, folder)
        async with job_at(Path(path) / "store", TINY, workers, "scripted") as (context, url):
            fleet = [WorkerSettings(context.job, url, index) for index in range(workers)]
            workers_running = [Worker(settings, context.store, build_engine(settings)) for settings in fleet]
            tasks = [asyncio.create_task(worker.run()) for worker in workers_running]
            seconds = await transactions(context, workers, folders)
            for worker in workers_running:
                worker.drain()
            await asyncio.gather(*tasks)
    return seconds


def make_files(folder: Path) -> None:
    """DIGEST_FILES of random tensors, DIGEST_BYTES in all."""
    import torch  # noqa: PLC0415 - not before the workers are forked
    from safetensors.torch import save_file  # noqa: PLC0415

    folder.mkdir()
    for number in range(DIGEST_FILES):
        save_file({"w": torch.rand(DIGEST_BYTES // DIGEST_FILES // 4)}, str(folder / f"{number}.safetensors"))
    time.sleep(TICK_SECONDS)


def load_files(folder: Path) -> None:
    """Reads and copies each tensor, the minimum work of an engine."""
    from safetensors.torch import load_file  # noqa: PLC0415

    for path in folder.iterdir():
        for tensor in load_file(str(path)).values():
            tensor.clone()


def read_files(folder: Path) -> None:
    """Reads the files without a digest."""
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass


def hash_files(folder: Path, name: str) -> None:
    """Hashes the files in one thread."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            hashlib.file_digest(file, name)


def digests(folder: Path, rounds: int) -> dict[str, Any]:
    """Minimum seconds over several rounds to load a folder of DIGEST_FILES, to read it, and to read and hash it."""
    make_files(folder)
    folders, target = WeightFolders(), WeightsTarget("v1", 1, Source(path=str(folder)))
    steps: dict[str, Callable[[], object]] = {
        "load": lambda: load_files(folder),
        "read": lambda: read_files(folder),
        f"read and hash, {HASH_THREADS} threads": lambda: asyncio.run(WeightFolders().get(target)),
        "check before a load": lambda: asyncio.run(folders.get(target)),
        "sha256, 1 thread": lambda: hash_files(folder, "sha256"),
        "blake2b, 1 thread": lambda: hash_files(folder, "blake2b"),
    }
    asyncio.run(folders.get(target))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begun)
    best = {name: min(found) for name, found in seconds.items()}
    for name, least in best.items():
        speed, share = DIGEST_BYTES / least / 2**30, least / best["load"]
        print(f"{name:>28}: {least:.4f} s, {speed:8.2f} GiB/s, {share:6.1%} of a load")
    return {"bytes": DIGEST_BYTES, "files": DIGEST_FILES, "rounds": rounds, "least_seconds": best}


def summary(name: str, workers: int, seconds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the transactions, printed as a row."""
    phases = {phase: statistics.median(row.get(phase, 0.0) for row in seconds) for phase in seconds[0]}
    print(f"{name:>9} × {workers:2} workers: " + ", ".join(f"{phase} {value:.2f} s" for phase, value in phases.items()))
    return {"model": name, "workers": workers, "seconds": phases, "transactions": len(seconds)}


def main() -> None:
    """Runs the chosen measurements and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=5, help="transactions for each row")
    parser.add_argument("--quick", action="store_true", help="the smallest model, two transactions")
    parser.add_argument("--digests", action="store_true", help="measure only the cost of digests")
    parser.add_argument(
        "--shared", action="store_true", help="measure only workers of one machine with a shared folder"
    )
    parser.add_argument(
        "--passed", action="store_true", help="measure only workers without a shared folder, which pass pieces on"
    )
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the version that is passed on")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.shared:
        measurements = shared(8, 1024, 3) | stamp.fields()
    elif options.passed:
        measurements = passed(8, options.megabytes) | stamp.fields()
    else:
        measurements = transactions_and_digests(options) | stamp.fields()
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def transactions_and_digests(options: argparse.Namespace) -> dict[str, Any]:
    """The measurements of transactions and of digests."""
    rows = list[dict[str, Any]]() if options.digests else transaction_rows(options)
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        return {"rows": rows, "digests": digests(Path(path) / "weights", 9)}


def transaction_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per fleet."""
    shapes = dict(list(SHAPES.items())[:1]) if options.quick else SHAPES
    versions = 2 if options.quick else options.versions
    preload(str(TINY))
    context = mp.get_context("fork")
    rows: list[dict[str, Any]] = []
    # All are forked now, while this is a single thread.
    fleets: list[tuple[str, list[Connection]]] = []
    for name in shapes:
        for workers in FLEETS:
            pipes = [context.Pipe() for _ in range(workers)]
            for index, (_, theirs) in enumerate(pipes):
                context.Process(target=work, args=(theirs, index), daemon=True).start()
            fleets.append((name, [ours for ours, _ in pipes]))
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        for number, (name, pipes) in enumerate(fleets):
            model = Path(path) / f"model-{number}"
            maker = context.Process(target=make_model, args=(model, shapes[name]))
            maker.start()
            maker.join()
            rows.append(summary(name, len(pipes), asyncio.run(real(pipes, model, versions))))
    return rows + [summary("scripted", count, asyncio.run(scripted(count, versions))) for count in SCRIPTED]


if __name__ == "__main__":
    main()
